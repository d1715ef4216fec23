"""Meters an answer that is a stream of server-sent events.

Usage is the last one given; whether the answer is finished shows in its last few
events. So the meter keeps those few, looks for two words in every event, and parses
JSON only where they stand, in one event of SAMPLE_EVERY, and at the end.
"""

from typing import Any, Final

from proxy.usage.answer import (
    Json,
    has_error,
    is_delta,
    is_last,
    parse,
    response_id,
    spare_usage,
    started_calls,
    summary_of,
    text_bytes,
    usage_behind,
    usage_object,
)
from proxy.usage.ends import WHOLE_BYTES, Ends
from proxy.usage.meter import Metered
from proxy.usage.tokens import Usage, usage_from_object

# What comes after an answer's last text: finish, usage, an error, [DONE]. One in reserve.
LAST_EVENTS: Final = 5

# Text per event is measured on a sample: at 0.6 us a parse, 1 in 16 costs 40 ns an event.
SAMPLE_EVERY: Final = 16

# Calls of one answer that are told apart. Agents make 1 to 10; what some server repeats in
# each delta costs a parse each, and no more than this many are remembered.
MAX_CALLS: Final = 128

_CR: Final = 0x0D
_FIELD: Final = 5  # b"data:"


class SseMeter:
    """Splits lines, collects each event's data, keeps what tells how the answer ended."""

    __slots__ = ("_after_cr", "_calls", "_event", "_first", "_last", "_line", "_sampled", "_usage", "events")

    def __init__(self) -> None:
        self.events = 0
        self._line: Ends | None = None  # a line that has begun and not ended
        self._after_cr = False  # a CR ended the last piece: an LF now belongs to it
        self._event: bytes | Ends | None = None  # data lines of an event that has begun
        self._first: bytes | Json = b""
        self._last: list[bytes | Json] = []  # a ring; the oldest at events % LAST_EVENTS
        self._usage: Json | None = None
        self._calls: frozenset[tuple[int, int]] = frozenset()  # (choice, call)
        self._sampled = (0, 0)  # events looked at, bytes of text in them

    def feed(self, data: bytes) -> None:
        if self._line is None and self._event is None and _is_one_line_event(data):
            self._after_cr = False
            self._take_event(data)
        elif data:
            self._take_lines(data)

    def finish(self) -> Metered:
        # An answer may end without the blank line, or inside a line. What is no JSON yet
        # was no event yet.
        if self._line is not None:
            self._end_line(self._line)
            self._line = None
        if isinstance(self._event, Ends) or (self._event is not None and _is_readable(self._event)):
            self._end_event()
        return self._metered()

    def _take_lines(self, data: bytes) -> None:
        if self._after_cr or _CR in data:
            data = self._with_lf_only(data)
        lines = data.split(b"\n")
        if self._line is not None:
            self._line.add(lines[0])
            if len(lines) == 1:
                return
            self._end_line(self._line)
            self._line = None
            del lines[0]
        if rest := lines.pop():
            self._line = Ends(rest)
        for line in lines:
            if not line:
                self._end_event()
            elif line[:_FIELD] == b"data:":
                if self._event is not None or len(line) > WHOLE_BYTES:
                    self._add_data(Ends(line))
                else:
                    self._event = line

    def _with_lf_only(self, data: bytes) -> bytes:
        if self._after_cr and data[:1] == b"\n":
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data[-1] == _CR
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _end_line(self, line: Ends) -> None:
        if line.head.startswith(b"data:"):
            self._add_data(line)

    def _add_data(self, line: Ends) -> None:
        """One more data line; several of one event are joined by LF, as the standard says."""
        if self._event is None:
            self._event = line.head if line.is_whole else line
            return
        joined = Ends(self._event) if isinstance(self._event, bytes) else self._event
        joined.add(b"\n" + line.head[_FIELD:])
        if not line.is_whole:
            joined.add(line.tail)
        self._event = joined.head if joined.is_whole else joined

    def _end_event(self) -> None:
        event, self._event = self._event, None
        if isinstance(event, Ends):
            self._take_long(event)
        elif event is not None:
            self._take_event(event)

    def _take_event(self, event: bytes) -> None:
        events = self._keep(event)
        if events == 1:
            self._first = event
        elif events % SAMPLE_EVERY == 2:
            self._sample(event)
        at = event.rfind(b'"usage"')
        if at >= 0 and not event.startswith((b":null", b": null"), at + 7):
            self._take_usage(event, at)
        if event.find(b'"name"') >= 0:  # in every dialect a tool call begins with its name
            self._take_calls(event)

    def _keep(self, event: bytes | Json) -> int:
        """Among the last few; returns how many there were so far."""
        events = self.events
        if events < LAST_EVENTS:
            self._last.append(event)
        else:
            self._last[events % LAST_EVENTS] = event
        self.events = events = events + 1
        return events

    def _take_usage(self, event: bytes, at: int) -> None:
        found = usage_behind(event, at)
        if found is None and isinstance(document := parse(event[_FIELD:]), dict):
            found = usage_object(document)
        if found is not None:
            self._usage = found

    def _take_calls(self, event: bytes) -> None:
        if len(self._calls) < MAX_CALLS and isinstance(document := parse(event[_FIELD:]), dict):
            self._calls = self._calls.union(started_calls(document))

    def _sample(self, event: bytes) -> None:
        if isinstance(document := parse(event[_FIELD:]), dict):
            looked_at, size = self._sampled
            self._sampled = looked_at + 1, size + text_bytes(document)

    def _take_long(self, event: Ends) -> None:
        summary = summary_of(event)
        self._usage = summary.get("usage", self._usage)
        self._keep(summary)
        if self.events == 1:
            self._first = summary

    def _metered(self) -> Metered:
        oldest = self.events % LAST_EVENTS
        in_order = self._last[oldest:] + self._last[:oldest]
        last = [event for event in reversed(in_order) if not _is_done(event)]
        done = len(self._last) - len(last)
        first = _document(self._first)
        usage = self._final_usage(first) or next(filter(None, map(spare_usage, map(_document, last))), None)
        deltas, size = (0, 0) if usage else self._text(first, last, self.events - done)
        return Metered(
            usage=usage,
            terminal=done > 0 or _is_finished(last),
            error=any(map(_is_error, last)),
            events=self.events - done,
            deltas=deltas,
            text_bytes=size,
            tool_calls=len(self._calls),
            response_id=response_id(first),
        )

    def _final_usage(self, first: Json) -> Usage | None:
        found = self._usage
        if not found:
            return None
        if first.get("type") == "message_start":
            # Anthropic counts the prompt in the first event and the answer in the last.
            began = usage_object(first) or {}
            found = began | {name: value for name, value in found.items() if value is not None}
        return usage_from_object(found)

    def _text(self, first: Json, last: list[bytes | Json], events: int) -> tuple[int, int]:
        """Events that brought text, and about how many bytes of it."""
        texts = [text_bytes(_document(event)) for event in last]
        if events <= len(texts):
            return events - texts.count(0), sum(texts)
        without = texts.count(0) + (not text_bytes(first))
        looked_at, size = self._sampled
        return events - without, round((size + sum(texts)) / (looked_at + len(texts)) * events)


def _is_one_line_event(data: bytes) -> bool:
    """Whether this is one whole event of one line, as nearly every piece of a stream is."""
    return (
        data.startswith(b"data:")
        and data.endswith(b"\n\n")
        and data.find(b"\n") == len(data) - 2
        and _CR not in data
        and len(data) <= WHOLE_BYTES
    )


def _is_error(event: bytes | Json) -> bool:
    if isinstance(event, bytes) and b'"error"' not in event and b'"response.failed"' not in event:
        return False
    return has_error(_document(event))


def _is_finished(last: list[bytes | Json]) -> bool:
    """Whether the newest event that belongs to the text is the text's last; `last` is newest first."""
    for document in map(_document, last):
        if is_last(document):
            return True
        if is_delta(document):
            return False
    return False


def _document(event: bytes | Json) -> Json:
    document: Any = event if isinstance(event, dict) else parse(event[_FIELD:])
    return document if isinstance(document, dict) else {}


def _is_done(event: bytes | Json) -> bool:
    return isinstance(event, bytes) and event[_FIELD:].strip() == b"[DONE]"


def _is_readable(event: bytes) -> bool:
    return _is_done(event) or parse(event[_FIELD:]) is not None
