"""Lets a meter read a compressed answer, from a copy of it that is inflated on the side."""

import zlib

from proxy.usage.meter import Meter, Metered

# Inflating happens between two reads of the event loop, so one read may cost only so much:
# text repeats itself, yet the envelope of a stream compresses 10 to 40 times, not 100.
MAX_RATIO = 100
FREE_BYTES = 1024 * 1024  # below this the ratio says nothing

# The longest answers seen are some 4 MB of events; beyond this the meter gives up.
MAX_INFLATED_BYTES = 32 * 1024 * 1024

_PIECE_BYTES = 64 * 1024

_AUTO = 32 + zlib.MAX_WBITS  # the zlib or the gzip wrapping, whichever it is
_RAW = -zlib.MAX_WBITS


class InflatingMeter:
    """Feeds an inner meter; gives up, and reports nothing, on what it cannot or should not inflate."""

    __slots__ = (
        "_given_up",
        "_inflated",
        "_inner",
        "_may_be_raw",
        "_members",
        "_received",
        "_start",
        "_stopped",
        "_zlib",
    )

    def __init__(self, inner: Meter, coding: bytes) -> None:
        self._inner = inner
        self._zlib = zlib.decompressobj(_AUTO)
        self._may_be_raw = coding == b"deflate"  # some servers leave out the zlib wrapping
        self._start = b""
        self._received = 0
        self._inflated = 0
        self._members = 0  # a gzip body may have several, one behind the other
        self._stopped = False
        self._given_up = False

    @property
    def events(self) -> int:
        return self._inner.events

    def feed(self, data: bytes) -> None:
        if self._stopped:
            return
        self._received += len(data)
        if self._may_be_raw:
            data = self._start = self._start + data
            if len(data) < 2:
                return
            if data[0] & 0x0F != 8 or int.from_bytes(data[:2], "big") % 31:
                self._zlib = zlib.decompressobj(_RAW)
            self._may_be_raw = False
            self._start = b""
        try:
            self._inflate(data)
        except zlib.error:
            self._stopped = True
            self._given_up = not self._members  # what stands behind a whole body is not ours to judge

    def finish(self) -> Metered:
        metered = self._inner.finish()
        return Metered(events=metered.events) if self._given_up else metered

    def _inflate(self, data: bytes) -> None:
        while data:
            if self._zlib.eof:
                self._zlib = zlib.decompressobj(_AUTO)
                self._members += 1
            piece = self._zlib.decompress(data, _PIECE_BYTES)
            self._inflated += len(piece)
            if self._inflated > self._allowed():
                self._stopped = self._given_up = True
                return
            if piece:
                self._inner.feed(piece)
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail

    def _allowed(self) -> int:
        return min(max(FREE_BYTES, MAX_RATIO * self._received), MAX_INFLATED_BYTES)
