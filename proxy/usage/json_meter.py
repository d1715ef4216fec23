"""Meters an answer that is one JSON document."""

import orjson

from proxy.usage.answer import (
    Json,
    has_error,
    id_in_head,
    response_id,
    spare_usage,
    started_calls,
    text_bytes,
    usage_in_ends,
    usage_object,
)
from proxy.usage.ends import WHOLE_BYTES, Ends
from proxy.usage.meter import Metered
from proxy.usage.tokens import Usage, usage_from_object
from proxy.usage.usual import usual


class JsonMeter:
    """Parses what is short; looks for the usage in the two ends of what is long.

    Of a long document, `terminal` means only that it ends in a closing brace or bracket,
    and its tool calls are not counted.
    """

    __slots__ = ("_ends", "events")

    def __init__(self) -> None:
        self._ends: Ends | bytes = b""
        self.events = 0

    def feed(self, data: bytes) -> None:
        if not self._ends:
            # The usual answer comes in one piece, which is kept as it is.
            self._ends = data if len(data) <= WHOLE_BYTES else Ends(data)
            return
        if isinstance(self._ends, bytes):
            self._ends = Ends(self._ends)
        self._ends.add(data)

    def finish(self) -> Metered:
        kept = self._ends
        if isinstance(kept, Ends):
            if not kept.is_whole:
                return _metered_ends(kept)
            kept = kept.head
        if (known := usual(kept)) is not None:
            return Metered(usage=known[0], terminal=True, response_id=known[1])
        try:
            document = orjson.loads(kept)
        except orjson.JSONDecodeError:
            return Metered()
        if not isinstance(document, dict):
            return Metered(terminal=True)
        return _metered(document, has_calls=kept.find(b'"name"') >= 0)


def _metered(document: Json, has_calls: bool) -> Metered:
    usage = _usage(document)
    return Metered(
        usage=usage,
        terminal=True,
        error=has_error(document),
        text_bytes=0 if usage else text_bytes(document),
        tool_calls=sum(1 for _ in started_calls(document)) if has_calls else 0,
        response_id=response_id(document),
    )


def _usage(document: Json) -> Usage | None:
    found = document.get("usage") or usage_object(document)
    return (usage_from_object(found) if isinstance(found, dict) else None) or spare_usage(document)


def _metered_ends(ends: Ends) -> Metered:
    found = usage_in_ends(ends)
    return Metered(
        usage=usage_from_object(found) if found else None,
        terminal=ends.tail.rstrip()[-1:] in (b"}", b"]"),
        text_bytes=ends.size if b'"choices"' in ends.head else 0,  # embeddings hold no text
        response_id=id_in_head(ends.head),
    )
