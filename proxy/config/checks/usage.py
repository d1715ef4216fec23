"""Reporters and their spool."""

from proxy.config.adapt import Note
from proxy.config.checks.place import Place
from proxy.config.schema import Config
from proxy.config.schema_usage import DatabaseReporter, Reporter, WebhookReporter
from proxy.config.values import bad_header, bad_identifier, bad_url

# A smaller file is full after a second of traffic: a record takes some 500 bytes.
SMALLEST_SPOOL = 1024 * 1024


def check(config: Config, place: Place, note: Note) -> None:
    usage, place = config.usage, place / "usage"
    (place / "reporters").distinct([reporter.name for reporter in usage.reporters], "name")
    for index, reporter in enumerate(usage.reporters):
        _reporter(reporter, config, place / "reporters" / index)
    if usage.spool.max_bytes < SMALLEST_SPOOL:
        (place / "spool" / "max_bytes").refuse("must be 1MiB or more")
    if usage.enabled and not any(reporter.enabled for reporter in usage.reporters):
        note("usage: on, but no reporter is; records are counted in metrics and go nowhere")


def _reporter(reporter: Reporter, config: Config, place: Place) -> None:
    match reporter:
        case WebhookReporter():
            (place / "url").judge(reporter.url, bad_url)
            (place / "headers").headers(reporter.headers, bad_header)
        case DatabaseReporter():
            (place / "storage").known(reporter.storage, config.storage.database_names(), "storage.databases")
            (place / "table").judge(reporter.table, bad_identifier)
