"""Server-sent events, as the HTML standard reads them.

Lines end at LF, CR or CR LF and nowhere else: U+2028 stands raw in many answers,
so text is never split as text. Every event keeps the bytes it came in, comments
are events of their own, and the bytes of all events joined are the stream.
"""

from collections.abc import Iterator
from typing import NamedTuple

# A stream without a blank line must not fill our memory. The largest event seen in
# practice is one base64 image delta, well under 8 MiB.
MAX_EVENT_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_COLON = 0x3A
_LF = b"\n"


class EventTooLarge(ValueError):
    """An event that never ends."""

    def __init__(self) -> None:
        super().__init__(f"an event is larger than {MAX_EVENT_BYTES} bytes")


class SseEvent(NamedTuple):
    """One block of fields, or one comment line; `data` is None where no field of that name stood."""

    data: bytes | None = None
    event: bytes = b""
    id: bytes | None = None
    retry: int | None = None
    comment: bytes | None = None
    # As it came, with the blank line.
    raw: bytes = b""


class SseDecoder:
    """Bytes in, events out; `finish` once for a last event that no blank line ended."""

    __slots__ = ("_after_cr", "_block", "_first_line", "_lines", "_piece_bytes", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line that has begun
        self._piece_bytes = 0
        self._lines: list[bytes] = []  # of a block that has begun, as they came
        self._size = 0
        self._block = _Block()
        self._first_line = True
        self._after_cr = False

    @property
    def held(self) -> int:
        """Bytes of an event that has begun."""
        return self._size + self._piece_bytes

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that end in the next piece of the stream."""
        if not self._pieces and not self._lines and data[:5] == b"data:" and data[-2:] == b"\n\n":
            return self._whole(data)
        return list(self._read(data))

    def finish(self) -> list[SseEvent]:
        """What stands behind the last blank line, as if one followed."""
        events = list(self._line(b"".join(self._pieces))) if self._pieces else []
        self._pieces.clear()
        if self._lines:
            events.append(self._dispatch())
        return events

    def _whole(self, data: bytes) -> list[SseEvent]:
        """Events as every server writes them: one data line, LF, a blank line."""
        if b"\r" in data:
            return list(self._read(data))
        self._first_line = self._after_cr = False
        events: list[SseEvent] = []
        for part in data[:-2].split(b"\n\n"):
            if part[:5] == b"data:" and _LF not in part:
                if len(part) > MAX_EVENT_BYTES:
                    raise EventTooLarge
                value = part[6:] if part[5:6] == b" " else part[5:]
                events.append(SseEvent(value, raw=part + b"\n\n"))
            else:
                events += self._read(part + b"\n\n")
        return events

    def _read(self, data: bytes) -> Iterator[SseEvent]:
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == _LF:
                # The other half of a line end that was read already.
                self._add(_LF)
                data = data[1:]
        for line in data.splitlines(keepends=True):
            if line[-1:] in (b"\n", b"\r"):
                yield from self._line(self._joined(line))
            else:
                self._pieces.append(line)
                self._piece_bytes += len(line)
                self._bound()
        if data:
            self._after_cr = data[-1:] == b"\r"

    def _joined(self, line: bytes) -> bytes:
        if self._pieces:
            line = b"".join((*self._pieces, line))
            self._pieces.clear()
            self._piece_bytes = 0
        return line

    def _line(self, line: bytes) -> Iterator[SseEvent]:
        content = line.rstrip(b"\r\n")
        if self._first_line:
            self._first_line = False
            content = content.removeprefix(_BOM)
        self._add(line)
        self._bound()
        if not content:
            yield self._dispatch()
        elif content[0] == _COLON and self._block.empty:
            yield self._dispatch(comment=content[1:].removeprefix(b" "))
        elif content[0] != _COLON:
            self._block.field(content)

    def _add(self, raw: bytes) -> None:
        self._lines.append(raw)
        self._size += len(raw)

    def _dispatch(self, comment: bytes | None = None) -> SseEvent:
        block, raw = self._block, b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        if not block.empty:
            self._block = _Block()
        data = _LF.join(block.data) if block.data else None
        return SseEvent(data, block.event, block.id, block.retry, comment, raw)

    def _bound(self) -> None:
        if self._size + self._piece_bytes > MAX_EVENT_BYTES:
            raise EventTooLarge


class _Block:
    """The fields of one event."""

    __slots__ = ("data", "empty", "event", "id", "retry")

    def __init__(self) -> None:
        self.empty = True
        self.data: list[bytes] = []
        self.event = b""
        self.id: bytes | None = None
        self.retry: int | None = None

    def field(self, line: bytes) -> None:
        self.empty = False
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self.data.append(value)
        elif name == b"event":
            self.event = value
        elif name == b"id" and b"\0" not in value:
            self.id = value
        elif name == b"retry" and value.isdigit():
            self.retry = int(value[:18])


def encode(event: SseEvent) -> bytes:
    """The bytes of an event of ours; line ends in its data become lines."""
    lines: list[bytes] = []
    if event.comment is not None:
        lines += (b": " + line for line in _lines(event.comment))
    if event.event:
        lines.append(b"event: " + event.event)
    if event.id is not None:
        lines.append(b"id: " + event.id)
    if event.retry is not None:
        lines.append(b"retry: %d" % event.retry)
    if event.data is not None:
        lines += (b"data: " + line for line in _lines(event.data))
    return b"".join(line + _LF for line in lines) + _LF


def _lines(text: bytes) -> list[bytes]:
    return text.replace(b"\r\n", _LF).replace(b"\r", _LF).split(_LF)
