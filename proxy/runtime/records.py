"""The outbox and its sinks, as the configuration wants them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from proxy import clock
from proxy.config import Config
from proxy.config.schema_storage import Database
from proxy.config.schema_usage import (
    BuiltinReporter,
    DatabaseReporter,
    LogReporter,
    Reporter,
    WebhookReporter,
)
from proxy.sinks.backlog import Backlog, SpoolOptions
from proxy.sinks.kinds import KINDS
from proxy.sinks.outbox import Outbox
from proxy.sinks.sink import Sink


def make_outbox(config: Config, spool: Path) -> Outbox | None:
    """Where usage records go, by way of the folder `spool`; None if nobody wants them."""
    settings = config.usage
    wanted = [reporter for reporter in settings.reporters if reporter.enabled]
    if not settings.enabled or not wanted:
        return None
    databases = {database.name: database for database in config.storage.databases}
    sinks = [_sink(reporter, databases) for reporter in wanted]
    options = SpoolOptions(spool, settings.spool.max_bytes, settings.spool.max_age)
    backlog = Backlog([sink.name for sink in sinks], options, wall=clock.wall, monotonic=clock.monotonic)
    return Outbox(sinks, backlog, Random().random)


def _sink(reporter: Reporter, databases: Mapping[str, Database]) -> Sink:
    make: Callable[..., Sink] = KINDS[str(reporter.__struct_config__.tag)]
    match reporter:
        case WebhookReporter():
            return make(
                reporter.name,
                url=reporter.url,
                secret=reporter.secret or None,
                headers=reporter.headers,
                timeout=reporter.timeout,
                batch_size=reporter.batch_size,
                format=reporter.format,
            )
        case BuiltinReporter():
            return make(reporter.name, path=reporter.path, retention_days=reporter.retention_days or None)
        case DatabaseReporter():
            return make(
                reporter.name,
                url=databases[reporter.storage].url(),
                table=reporter.table,
                timeout=reporter.timeout,
            )
        case LogReporter():
            return make(reporter.name)
