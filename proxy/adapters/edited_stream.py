"""A stream whose events pass untouched, but for those that somebody has an edit for.

The events are split once for all who look at them. Whatever is wrong with an edit,
the stream goes on without it, and so it does behind an event that is too large to hold.
"""

import logging
from collections.abc import Callable, Sequence

from proxy.adapters.chat_choice import place_of
from proxy.wire.sse import EventTooLarge, SseDecoder, SseEvent

log = logging.getLogger(__name__)

# The bytes to write in an event's place, or None where it stays as it came.
Edit = Callable[[SseEvent], bytes | None]


class EditedStream:
    """Bytes in, bytes out; `finish` once after the last `feed`."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.failures = 0
        self._edits = list(edits)
        self._decoder = SseDecoder()
        self._begun = b""  # of an event that is not whole yet
        self._late_lf: bytes | None = None  # what is written for an LF that belongs to a CR before it

    def feed(self, data: bytes) -> bytes:
        """The bytes to write for the next piece of the upstream's stream."""
        begun, self._begun = self._begun + data, b""
        if not self._edits:
            return begun
        try:
            events = self._decoder.feed(data)
        except EventTooLarge:
            self._edits.clear()
            return begun
        self._begun = begun[sum([len(event.raw) for event in events]) :]
        return b"".join([self._written(event) for event in events])

    def finish(self, cut: bool = False) -> bytes:
        """What is left: an event without its blank line; of one that was cut, what there is of it."""
        begun, self._begun = self._begun, b""
        if cut or not self._edits:
            return begun
        return b"".join([self._written(event) for event in self._decoder.finish()])

    def _written(self, event: SseEvent) -> bytes:
        """What stands for an event; a line end that was cut in two stays one, or goes as one."""
        before = b""
        if self._late_lf is not None and event.raw[:1] == b"\n":
            before, event = self._late_lf, event._replace(raw=event.raw[1:])
        edited = self._edited(event)
        self._late_lf = None
        if event.raw[-1:] == b"\r":
            self._late_lf = b"\n" if edited is None else b""
        return before + (event.raw if edited is None else edited)

    def _edited(self, event: SseEvent) -> bytes | None:
        for edit in self._edits:
            try:
                edited = edit(event)
            except Exception as error:
                self.failures += 1
                log.error("an adapter failed", extra={"error": place_of(error)})
                self._edits.remove(edit)
                return None
            if edited is not None:
                return edited
        return None
