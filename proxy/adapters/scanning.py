"""What one choice of an answer goes through: thinking split off, then calls found."""

import re
from collections.abc import Iterable

from proxy.adapters.events import Event, Text
from proxy.adapters.reasoning import ReasoningSplitter
from proxy.adapters.tool_calls.scanner import ToolScanner

_SURROGATE = re.compile("[\ud800-\udfff]")


class AnswerScanner:
    """Text in, events out. Either part may be missing; text then passes it."""

    def __init__(self, splitter: ReasoningSplitter | None, scanner: ToolScanner | None) -> None:
        self._splitter = splitter
        self._scanner = scanner
        if splitter is not None and scanner is not None:
            splitter.judged_by(scanner)
        self._surrogate = ""

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        if self._surrogate or not text.isascii():
            text = self._joined(text, ended=False)
        if not text:
            return []
        if self._splitter is None or self._splitter.passing:
            return self._find_calls(text)
        return self._behind(self._splitter.split(text))

    def finish(self, truncated: bool = False) -> list[Event]:
        """The events of what was held back; `truncated` says the model was cut off."""
        events = self.feed(self._joined("", ended=True))
        if self._splitter is not None:
            events += self._behind(self._splitter.split("", ended=True))
        if self._scanner is not None:
            events += self._scanner.finish(truncated)
        return events

    def _behind(self, events: Iterable[Event]) -> list[Event]:
        """The splitter's events, with the calls found in its text."""
        if self._scanner is None:
            return list(events)
        found: list[Event] = []
        for event in events:
            if isinstance(event, Text):
                found += self._scanner.feed(event.text)
            else:
                found.append(event)
        return found

    def _find_calls(self, text: str) -> list[Event]:
        return [Text(text)] if self._scanner is None else self._scanner.feed(text)

    def _joined(self, text: str, *, ended: bool) -> str:
        """Halves of a character that were split over two pieces, put together."""
        text, self._surrogate = self._surrogate + text, ""
        if _SURROGATE.search(text) is None:
            return text
        if not ended and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
