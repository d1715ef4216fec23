"""The chunked transfer coding (RFC 9112, 7.1), followed byte by byte but never re-written.

The scanner says how much of a piece may be passed on as it stands and which
bytes of it are payload. What cannot be judged yet is held back: a size line
that is not whole, and the last chunk with its trailers until its final blank
line, so that a message cut there cannot look complete to a lenient reader.
"""

import re
from string import hexdigits
from typing import Final

from proxy.wire.http1 import BadHead, Kind, classify

# Chunk extensions are unused in practice; nginx and HAProxy stop at a few KiB too.
MAX_SIZE_LINE_BYTES: Final = 1024

# Trailers carry a checksum or a status; the same bound as for a small head.
MAX_TRAILER_BYTES = 16 * 1024

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_BAD_TRAILER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# By byte: the value of a hexadecimal digit, or _NO_DIGIT.
_NO_DIGIT: Final = 16
_DIGITS: Final = bytes(int(chr(byte), 16) if chr(byte) in hexdigits else _NO_DIGIT for byte in range(256))

# Read digit by digit; a chunk that needs more of them is worth a search.
_SMALL_DIGITS: Final = 4

_CR: Final = 0x0D
_LF: Final = 0x0A


def _size(line: bytes) -> int:
    match = _SIZE_LINE.fullmatch(line)
    if match is None:
        raise BadHead("malformed chunk size")
    return int(match[1], 16)


class ChunkScanner:
    """Follows one chunked body: feed pieces, pass on `feed`'s result, look at `payload`.

    After `done`, `rest` holds the bytes that came behind the message. After a
    BadHead, `passable` holds what had been in order up to there.
    """

    __slots__ = ("_held", "_left", "_pieces", "_trailers", "done", "passable", "payload", "rest")

    def __init__(self) -> None:
        self._held = b""
        self._left = 0  # bytes still to come of the open chunk: its payload and the CR LF behind it
        self._pieces: list[bytes] = []  # of the payload
        self._trailers = False
        self.done = False
        self.payload = b""
        self.passable = b""
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return the bytes that may be passed on now."""
        if not self._left and not self._trailers and not self._held:
            start = self._take_small_size(data, 0)
            if start and start + self._left == len(data) and data.endswith(b"\r\n"):
                self._left = 0  # one whole chunk, as nearly every piece of a stream is
                self.payload = data[start:-2]
                return data
            self._left = 0
        self._pieces = []
        try:
            return self._follow(data)
        finally:
            self.payload = b"".join(self._pieces)

    def _follow(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        at, end = 0, len(data)
        try:
            while at < end and not self.done:
                if self._left:
                    at = self._take_payload(data, at, end)
                    continue
                step = self._take_last(data, at) if self._trailers else self._take_size(data, at)
                if step < 0:
                    break
                at = step
        except BadHead:
            self.passable = data[:at]
            raise
        if self.done:
            self.rest = data[at:]
        elif at < end:
            self._held = data[at:]
        return data if at == end else data[:at]

    def _take_payload(self, data: bytes, at: int, end: int) -> int:
        left = self._left
        stop = at + left
        if stop <= end:
            if left >= 2 and data[stop - 2 : stop] != b"\r\n":
                raise BadHead("a chunk is longer than its size")
            if left == 1 and data[at] != 0x0A:
                raise BadHead("a chunk is longer than its size")
            if left > 2:
                self._pieces.append(data[at : stop - 2])
            self._left = 0
            return stop
        payload = min(end, stop - 2)
        if payload > at:
            self._pieces.append(data[at:payload])
        if end == stop - 1 and data[end - 1] != 0x0D:
            raise BadHead("a chunk is longer than its size")
        self._left = stop - end
        return end

    def _take_small_size(self, data: bytes, at: int) -> int:
        """A size line of a few digits and nothing else, as nearly all are; 0 where it is none."""
        size, stop, whole = 0, at + _SMALL_DIGITS, len(data) - 2
        if stop > whole:
            stop = whole
        while at < stop:
            digit = _DIGITS[data[at]]
            if digit == _NO_DIGIT:
                break
            size = size * 16 + digit
            at += 1
        if size == 0 or data[at] != _CR or data[at + 1] != _LF:
            return 0
        self._left = size + 2
        return at + 2

    def _take_size(self, data: bytes, at: int) -> int:
        after = self._take_small_size(data, at)
        if after:
            return after
        newline = data.find(b"\n", at, at + MAX_SIZE_LINE_BYTES)
        if newline < 0:
            if len(data) - at >= MAX_SIZE_LINE_BYTES:
                raise BadHead("a chunk's size line is too long")
            return -1
        if newline == at or data[newline - 1] != 0x0D:
            raise BadHead("a chunk's size line does not end with CR LF")
        size = _size(data[at : newline - 1])
        if size == 0:
            return self._take_last(data, at)
        self._left = size + 2
        return newline + 1

    def _take_last(self, data: bytes, at: int) -> int:
        """From the 0 of the last chunk to the blank line behind the trailers, all or nothing."""
        self._trailers = True
        first = data.index(b"\n", at) + 1
        if data.startswith(b"\r\n", first):
            self.done = True
            return first + 2
        end = data.find(b"\r\n\r\n", first)
        if (end if end >= 0 else len(data)) - first > MAX_TRAILER_BYTES:
            raise BadHead("the trailers are too long")
        if end < 0:
            return -1
        self._check_trailers(data[first:end])
        self.done = True
        return end + 4

    @staticmethod
    def _check_trailers(trailers: bytes) -> None:
        for line in trailers.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if not colon or _BAD_TRAILER.search(value) or classify(name)[0] is not Kind.PLAIN:
                raise BadHead("a trailer is malformed")
