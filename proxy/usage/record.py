"""One request that reached an upstream, as it is billed: who, what, where, how much.

A record never holds a key, a prompt or a completion. The nested form keeps the
fields of the Go LLMProxy's webhook, the flat form those of its README; both say
more. `id` names the record for ever, so that a receiver can drop repeats.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, structs, to_builtins
from msgspec.json import Decoder, Encoder

from proxy.usage.tokens import Usage

Format = Literal["nested", "flat"]
Outcome = Literal["complete", "client_closed", "upstream_cut", "timeout", "error"]


class UsageRecord(Struct, frozen=True, kw_only=True, gc=False):
    """Its fields are those of the nested form, in their order. None means unknown.

    `id` comes first: what only needs a record's id finds it without parsing. `timestamp`
    is in UTC. Milliseconds are whole ones: the Go LLMProxy's receivers read an integer.
    """

    id: str
    request_id: str
    timestamp: datetime
    user_id: str | None = None
    key_id: str | None = None
    key_name: str | None = None
    session: str | None = None
    model: str
    upstream_model: str | None = None
    method: str
    path: str
    stream: bool = False
    pool: str
    backend: str
    backend_url: str = ""
    response_id: str | None = None
    status_code: int
    outcome: str  # an Outcome, or one that another version knows
    latency_ms: int
    ttfb_ms: int | None = None
    attempts: int = 1
    tool_calls: int = 0
    estimated: bool = False
    incomplete: bool = False
    usage: Usage | UnsetType = UNSET

    def to_json(self, format: Format = "nested") -> bytes:
        """One line of JSON, without the line's end."""
        if format == "nested":
            return to_lines([self])
        record = to_builtins(self)
        record |= record.pop("usage", {})
        record["is_stream"] = record.pop("stream")
        record["endpoint"] = record.pop("path")
        return _ENCODER.encode(record)

    @classmethod
    def from_json(cls, line: bytes) -> "UsageRecord":
        """Read the nested form again; a field it lacks gets its default. ValueError for what is none."""
        return _DECODER.decode(line)


_ENCODER = Encoder()
_DECODER = Decoder(UsageRecord)


def to_lines(records: Sequence[UsageRecord]) -> bytes:
    """Each as one line of JSON, with line ends between them. Some 0.3 us a record."""
    try:
        return _ENCODER.encode_lines(records)[:-1]
    except UnicodeEncodeError:  # bytes of a request target that are no UTF-8 stand in it as surrogates
        return _ENCODER.encode_lines([_as_utf8(record) for record in records])[:-1]


def _as_utf8(record: UsageRecord) -> UsageRecord:
    texts = {name: text for name, text in structs.asdict(record).items() if isinstance(text, str)}
    return structs.replace(
        record, **{name: text.encode(errors="replace").decode() for name, text in texts.items()}
    )
