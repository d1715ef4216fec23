"""Request heads that differ in nothing but the client's key.

Each client has a key of its own and so a head of its own, but thousands of them
run the same few programs. So a head is read without its key, once for all who
send the same, and each request's own head is that one with its own line put in.

What is shared was made of bytes that hold no key: the value is cut out before
anybody looks at them. Only a key in its plain form is: in one of the configured
headers, behind one blank (and Bearer, where that is needed), printable ASCII to
the line's end. That can be read in one way only and says nothing about the rest of
the head. Any other head is read as it is, and what remains of a key in a further
line belongs to what has to be the same.
"""

import re
from collections.abc import Iterable

from proxy.wire.head_memory import HeadMemory
from proxy.wire.http1 import Kind, RequestHead, classify, parse_request_head, read_line

# Bytes of heads without their keys, twice over: those of a few hundred programs, with all that is kept
# beside them 4 MiB. Whoever names a session too has a head of its own, and is remembered by all of it.
MAX_COMMON_HEADS = 256 * 1024

# Lines whose value decides nothing about the head.
_FREE = (Kind.PLAIN, Kind.HOP)


class CommonHeads:
    """Reads request heads; `names` are the headers that keys come in."""

    __slots__ = ("_key", "_memory")

    def __init__(self, names: Iterable[bytes]) -> None:
        self._key = _key_pattern(names)
        self._memory = HeadMemory(parse_request_head, MAX_COMMON_HEADS)

    def read(self, raw: bytes) -> RequestHead:
        """The head in these bytes, blank line included; raises a ProxyError that says what is wrong."""
        found = self._key.search(raw) if self._key is not None else None
        if found is None:
            return parse_request_head(raw)
        before, start, end = found.start(), found.start(2), found.end(2)
        common = self._memory.read(raw[:start] + raw[end:])
        return common.with_line(raw.count(b"\r\n", 0, before), read_line(raw[before + 2 : end]))


def _key_pattern(names: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Finds a whole line with a key: its beginning and the key."""
    free = [name for name in names if classify(name)[0] in _FREE]
    if not free:
        return None
    beginnings = b"|".join(re.escape(name) + _before_key(name) for name in free)
    return re.compile(rb"\r\n((?i:%b))([\x21-\x7e]+)(?=\r\n)" % beginnings)


def _before_key(name: bytes) -> bytes:
    return rb":\ bearer\ " if name.lower() == b"authorization" else rb":\ "
