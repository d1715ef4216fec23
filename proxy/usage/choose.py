"""Picks the meter for an answer from two header values."""

from collections.abc import Callable
from functools import lru_cache

from proxy.usage.inflate import InflatingMeter
from proxy.usage.json_meter import JsonMeter
from proxy.usage.meter import Meter, Metered, OpaqueMeter
from proxy.usage.sse_meter import SseMeter

# What servers send: a few types, each with or without a charset and a coding.
_REMEMBERED = 64

_INFLATABLE = frozenset({b"gzip", b"x-gzip", b"deflate"})

# Types under which servers send streams or JSON all the same.
_UNSAYING = frozenset({b"", b"text/plain", b"application/octet-stream"})


def meter_for(content_type: bytes, content_encoding: bytes = b"") -> Meter:
    """A meter for an answer with these headers (empty: not given)."""
    return _factory(content_type, content_encoding)()


@lru_cache(maxsize=_REMEMBERED)
def _factory(content_type: bytes, content_encoding: bytes) -> Callable[[], Meter]:
    coding = content_encoding.strip().lower()
    plain = _for_type(content_type.partition(b";")[0].strip().lower())
    if coding in _INFLATABLE:
        return lambda: InflatingMeter(plain(), coding)
    return plain if coding in (b"", b"identity") else OpaqueMeter


def _for_type(media_type: bytes) -> type[Meter]:
    if media_type == b"text/event-stream":
        return SseMeter
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return JsonMeter
    return SniffingMeter if media_type in _UNSAYING else OpaqueMeter


class SniffingMeter:
    """Decides by the first visible byte whether this is JSON or a stream of events."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner: Meter | None = None

    @property
    def events(self) -> int:
        return self._inner.events if self._inner else 0

    def feed(self, data: bytes) -> None:
        if self._inner is None:
            data = data.lstrip()
            if not data:
                return
            self._inner = JsonMeter() if data[:1] in b"{[" else SseMeter()
        self._inner.feed(data)

    def finish(self) -> Metered:
        return self._inner.finish() if self._inner else Metered()
