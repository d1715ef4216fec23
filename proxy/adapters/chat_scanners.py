"""Puts the scanners of one answer together, from the options and the request."""

from dataclasses import dataclass
from typing import Literal

from proxy.adapters.base import Chance, Counts, Emit
from proxy.adapters.chat_choice import Scanner
from proxy.adapters.chat_request import Wanted
from proxy.adapters.events import Event
from proxy.adapters.history_native import letters
from proxy.adapters.reasoning import ReasoningSplitter
from proxy.adapters.reasoning_families import ReasoningFamily
from proxy.adapters.scanning import AnswerScanner
from proxy.adapters.scanning_pattern import MAX_SPACE
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.scanner import ToolScanner
from proxy.adapters.tool_calls.tools import Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolScan:
    """Calls are looked for, in this format."""

    format: Format
    wanted: Wanted
    trigger: str | None
    unknown_tools: Literal["forward", "text"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingScan:
    """Thinking is looked for, in these tags."""

    family: ReasoningFamily
    starts_inside: bool | None
    emit: Emit
    # Nobody asked for it: only an answer that begins with thinking has any.
    implied: bool = False


class Undecided:
    """Looks at the first word of an answer: thinking stays text, but what looks like a call in it is none."""

    def __init__(self, family: ReasoningFamily, scanner: ToolScanner | None) -> None:
        self._family = family
        self._scanner = scanner
        self._held = ""
        self._decided: AnswerScanner | None = None

    def feed(self, text: str) -> list[Event]:
        if self._decided is not None:
            return self._decided.feed(text)
        text, self._held = self._held + text, ""
        word = text.lstrip()
        if len(text) <= MAX_SPACE and any(tag.startswith(word) for tag in self._family.open if tag != word):
            self._held = text
            return []
        return self._decide(word.startswith(self._family.open)).feed(text)

    def finish(self, truncated: bool = False) -> list[Event]:
        if self._decided is not None:
            return self._decided.finish(truncated)
        decided = self._decide(False)
        return [*decided.feed(self._held), *decided.finish(truncated)]

    def _decide(self, thinks: bool) -> AnswerScanner:
        splitter = None
        if thinks:
            splitter = ReasoningSplitter(self._family, start_in_reasoning=False, marks=True)
        self._decided = AnswerScanner(splitter, self._scanner)
        return self._decided


class AnswerScanners:
    """A scanner for each choice, and what all of them counted."""

    def __init__(self, tools: ToolScan | None, thinking: ThinkingScan | None, chance: Chance) -> None:
        self._tools = tools
        self._thinking = thinking
        self._chance = chance
        self._known = Tools(tools.wanted.tools) if tools is not None else Tools(())
        self._made: list[ToolScanner] = []

    def new(self, *, split: bool) -> Scanner:
        scanner = self._tool_scanner()
        thinking = self._thinking
        if thinking is None or not split:
            return AnswerScanner(None, scanner)
        if thinking.implied:
            return Undecided(thinking.family, scanner)
        splitter = ReasoningSplitter(
            thinking.family,
            start_in_reasoning=thinking.starts_inside,
            calls=scanner,
            marks=thinking.emit == "keep",
        )
        return AnswerScanner(splitter, scanner)

    @property
    def counts(self) -> Counts:
        counts = Counts()
        for made in self._made:
            counts.add(Counts(made.calls, made.unknown, made.repaired, made.dropped))
        return counts

    def _tool_scanner(self) -> ToolScanner | None:
        scan = self._tools
        if scan is None:
            return None
        made = ToolScanner(
            scan.format,
            self._known,
            new_id=self._nine if scan.format.id_style == "nine" else self._id,
            unknown_tools=scan.unknown_tools,
            trigger=scan.trigger,
            single=scan.wanted.single,
            named=scan.wanted.named,
        )
        self._made.append(made)
        return made

    def _id(self) -> str:
        return "call_" + letters(self._chance(24), 24)

    def _nine(self) -> str:
        return letters(self._chance(12), 9)
