"""One choice of an answer: its text on its way through the scanners.

Scanners are asked for when the first text comes, so that an upstream which
already splits the thinking off, or writes native tool calls, switches ours off
for that choice. What a scanner holds back is remembered here too: if it fails,
the text is not lost.
"""

from collections.abc import Iterable
from typing import Protocol

from proxy.adapters.base import Counts
from proxy.adapters.events import CallArguments, CallEnd, Event, Reasoning, Text
from proxy.wire.openai import STOPPED, TRUNCATED

# What may be given back after a failure: one argument that is not a string, which
# the scanners hold up to 1 MiB of.
MAX_PENDING = 1024 * 1024


class Scanner(Protocol):
    """Text in, events out."""

    def feed(self, text: str) -> list[Event]: ...

    def finish(self, truncated: bool = False) -> list[Event]: ...


class Scanners(Protocol):
    """Makes a scanner for each choice; `split` says whether thinking is still in the text."""

    def new(self, *, split: bool) -> Scanner: ...

    @property
    def counts(self) -> Counts: ...


class Choice:
    """`active` while our scanners look at the text; then it passes as it comes."""

    __slots__ = (
        "_ended",
        "_named",
        "_pending",
        "_pending_size",
        "_scanner",
        "_scanners",
        "_split",
        "active",
        "complete",
        "has_role",
        "native",
    )

    def __init__(self, scanners: Scanners, *, named: bool = False) -> None:
        self.active = True
        self.has_role = False
        self.complete = 0
        self._ended = False
        self.native = False
        self._named = named
        self._scanners = scanners
        self._scanner: Scanner | None = None
        self._split = True
        self._pending: list[str] = []
        self._pending_size = 0

    def feed(self, text: str) -> list[Event]:
        """The events of more text."""
        scanner = self._scanner
        if scanner is None:
            scanner = self._scanner = self._scanners.new(split=self._split)
        events = scanner.feed(text)
        self._remember(text, events)
        return events

    def finish(self, reason: str | None) -> list[Event]:
        """The events of what is still held, since nothing more comes."""
        scanner, self._scanner = self._scanner or self._scanners.new(split=self._split), None
        events = scanner.finish(reason is None or reason in TRUNCATED)
        self._count(events)
        self.active = False
        self._pending = []
        return events

    def reasons_natively(self) -> None:
        """The upstream splits the thinking off itself."""
        if self._scanner is None:
            self._split = False

    def give_up(self) -> str:
        """Scan no more; the text that was held back, as well as that is known."""
        pending, self._pending = "".join(self._pending), []
        self._scanner = None
        self.active = False
        return pending

    def leave(self) -> list[Event]:
        """The upstream writes native calls: what is held is content, and the rest is not ours."""
        events = self.finish(None) if self._scanner is not None else []
        self.native, self.active = True, False
        return events

    def ending(self, upstream: str | None) -> str | None:
        """What ends this choice when the upstream says this; nothing ends it twice."""
        if upstream is None or self._ended:
            return None
        self._ended = True
        if self.native or upstream not in STOPPED:
            return upstream
        return "tool_calls" if self.complete and not self._named else "stop"

    def _remember(self, text: str, events: list[Event]) -> None:
        """Keep what has come and is not in any event yet."""
        if not events:
            self._pending_size += len(text)
            if self._pending_size <= MAX_PENDING:
                self._pending.append(text)
            return
        last = events[-1]
        if len(events) == 1 and not self._pending and isinstance(last, Text) and last.text == text:
            return
        left = "" if isinstance(last, CallArguments) else _behind("".join(self._pending) + text, last)
        self._pending = [left] if left else []
        self._pending_size = len(left)
        if len(events) > 1 or isinstance(last, CallEnd):
            self._count(events)

    def _count(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, CallEnd):
                self.complete += 1


def _behind(text: str, last: Event) -> str:
    """The text behind what the last event said; nothing is known inside a call."""
    if not isinstance(last, Text | Reasoning):
        return ""
    at = text.rfind(last.text)
    return text[at + len(last.text) :] if at >= 0 else ""


def place_of(error: Exception) -> str:
    """What went wrong and where; the message is left out, it may hold a model's words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + where
