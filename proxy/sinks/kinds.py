"""Every kind of sink, by the name it has in a configuration."""

from proxy.sinks.database import DatabaseTable
from proxy.sinks.log import LogLines
from proxy.sinks.sqlite import SqliteTable
from proxy.sinks.webhook import Webhook

KINDS = {
    "webhook": Webhook,
    "log": LogLines,
    "builtin": SqliteTable,
    "database": DatabaseTable,
}
