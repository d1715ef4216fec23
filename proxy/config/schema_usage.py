"""What was used, and who is told."""

from typing import Annotated, Literal

from msgspec import Meta, field

from proxy.config.types import (
    Duration,
    Section,
    Size,
    confidential,
    no_op,
    says,
    writes,
)


class ReporterBase(Section, frozen=True, kw_only=True, tag_field="type"):
    """What every reporter has."""

    name: Annotated[
        str, says("How logs and metrics call it, and under which name its place in the spool is kept.")
    ] = ""
    enabled: Annotated[bool, says("Switches this reporter on.")] = True


class WebhookReporter(ReporterBase, frozen=True, kw_only=True, tag="webhook"):
    """Records sent as JSON by HTTP, at least once, each with an id that stays the same."""

    url: Annotated[str, says("Where records go.")]
    timeout: Annotated[Duration, says("How long an answer may take.")] = 3.0
    headers: Annotated[dict[str, str], confidential("Headers to send along.")] = field(default_factory=dict)
    secret: Annotated[str, confidential("Signs each request with HMAC-SHA256; empty sends no signature.")] = (
        ""
    )
    format: Annotated[
        Literal["nested", "flat"],
        says("nested: token counts in a `usage` object; flat: all fields side by side."),
    ] = "nested"
    batch_size: Annotated[
        Annotated[int, Meta(ge=1, le=1000)],
        says("Records in one request; 1 sends each as an object, more send a list."),
    ] = 1
    method: Annotated[Literal["POST"], says("How they are sent.")] = "POST"
    retry: Annotated[
        int | None,
        no_op("Delivery is tried again, with growing waits, until usage.spool.max_age."),
    ] = None


class DatabaseReporter(ReporterBase, frozen=True, kw_only=True, tag="database"):
    """Records written to a table; it is created where it is missing."""

    storage: Annotated[str, says("Which of storage.databases.")] = "default"
    table: Annotated[str, says("The table.")] = "usage_records"
    timeout: Annotated[Duration, says("How long a transaction may take.")] = 10.0


class BuiltinReporter(ReporterBase, frozen=True, kw_only=True, tag="builtin"):
    """Records kept in an SQLite file beside the gateway."""

    path: Annotated[str, writes("The database file.", restart=False)] = "data/usage_records.db"
    retention_days: Annotated[
        Annotated[int, Meta(ge=0)], says("Records older than this are deleted; 0 keeps all.")
    ] = 0


class LogReporter(ReporterBase, frozen=True, kw_only=True, tag="log"):
    """Records written to the log, a line each."""


Reporter = WebhookReporter | DatabaseReporter | BuiltinReporter | LogReporter


class Spool(Section, frozen=True, kw_only=True):
    """The file in which records wait until every reporter has them; it survives kill -9."""

    path: Annotated[str, writes("The folder of its SQLite files; nobody else may read it.")] = "data/spool"
    max_bytes: Annotated[Size, says("How large it may grow.")] = 1024**3
    max_age: Annotated[
        Duration, says("Age at which a record that nobody took is dropped, counted and logged.")
    ] = 7 * 86400.0
    on_full: Annotated[
        Literal["drop_oldest", "refuse"],
        says("At max_bytes: drop the oldest records (counted, logged), or refuse requests with 503."),
    ] = "drop_oldest"


class Usage(Section, frozen=True, kw_only=True):
    """One record for each request that reached an upstream."""

    enabled: Annotated[bool, says("Make records; on when the section is written.")] = True
    reporters: Annotated[tuple[Reporter, ...], says("Who gets them.")] = ()
    spool: Annotated[Spool, says("Where they wait.")] = Spool()
