"""Heads that were read before, so that the same one is not read twice.

A client repeats its head with every request, all but the body's length; a server
repeats its own until its Date changes. A head is recognised by all its bytes but
the digits of Content-Length, and those are judged anew: what is recognised has
passed the same checks as what is read.

There are two generations of memories. What nobody asked for while the younger one
filled up is forgotten with the older one. A head is remembered when it comes for the
second time: those with an id of their own for each request never do, and would only
drive out the others.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from proxy.wire.http1 import is_length

# Coding agents send heads of 0.5 to 1.5 KiB; one with large cookies is read each time.
MAX_HEAD_BYTES = 4 * 1024

# Heads seen once, as hashes of 0.1 KB each: those of ten thousand clients between two requests of each.
MAX_SEEN = 16_384

_BEFORE_LENGTH = b"ength: "  # in either case, and in no other usual header
_LENGTH_LINE = b"\r\ncontent-length: "


class Head(Protocol):
    """A RequestHead or an AnswerHead."""

    def with_length(self, length: int) -> Self: ...


H = TypeVar("H", bound=Head)


class _Known(NamedTuple, Generic[H]):
    head: H
    start: int
    digits: bytes
    is_length: bool  # whether `digits` are the Content-Length, and may be others next time


class HeadMemory(Generic[H]):
    """Reads heads with `parse`; a generation keeps `max_bytes` of them, which come to six times that."""

    __slots__ = ("_bytes", "_max_bytes", "_old", "_parse", "_seen", "_young")

    def __init__(self, parse: Callable[[bytes], H], max_bytes: int) -> None:
        self._parse = parse
        self._max_bytes = max_bytes
        self._young: dict[bytes, _Known[H]] = {}
        self._old: dict[bytes, _Known[H]] = {}
        self._bytes = 0
        self._seen: set[int] = set()

    def read(self, raw: bytes) -> H:
        """The head in these bytes, blank line included; raises what `parse` raises."""
        found = raw.find(_BEFORE_LENGTH)
        start = found + len(_BEFORE_LENGTH) if found >= 0 else len(raw)
        end = raw.find(b"\r", start) if found >= 0 else start
        key, digits = raw[:start] + raw[end:], raw[start:end]
        known = self._young.get(key) or self._recall(key)
        if known is not None and known.start == start:
            if digits == known.digits:
                return known.head
            if known.is_length and is_length(digits):
                return known.head.with_length(int(digits))
        head = self._parse(raw)
        if len(raw) <= MAX_HEAD_BYTES and self._was_seen(key):
            before = raw[max(start - len(_LENGTH_LINE), 0) : start].lower()
            self._remember(key, _Known(head, start, digits, before == _LENGTH_LINE and is_length(digits)))
        return head

    def _was_seen(self, key: bytes) -> bool:
        """Whether it was seen before, as far as anybody knows; the next time it will have been."""
        mark = hash(key)
        if mark in self._seen:
            self._seen.remove(mark)
            return True
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(mark)
        return False

    def _recall(self, key: bytes) -> _Known[H] | None:
        known = self._old.get(key)
        if known is not None:
            self._remember(key, known)
        return known

    def _remember(self, key: bytes, known: _Known[H]) -> None:
        if self._bytes >= self._max_bytes:
            self._old, self._young = self._young, {}
            self._bytes = 0
        self._young[key] = known
        self._bytes += len(key)
