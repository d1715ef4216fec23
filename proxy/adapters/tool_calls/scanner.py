"""Finds the tool calls in a model's text.

Text goes straight through, except for a tail that may still become a mark. A
call is certain once its opening and what must follow it are there; until then
its text can go back to content unchanged. Then a reader for the format's body
takes over until the call's end.
"""

import re
from collections.abc import Callable
from typing import Literal, Protocol

from proxy.adapters.events import Event
from proxy.adapters.scanning_pattern import MORE, More, captures
from proxy.adapters.tool_calls.braces import Braces
from proxy.adapters.tool_calls.elements import Elements
from proxy.adapters.tool_calls.format import Body, Format
from proxy.adapters.tool_calls.json_arguments import JsonArguments
from proxy.adapters.tool_calls.objects import Objects
from proxy.adapters.tool_calls.openings import Act, Opening, Openings, Place, places, triggered
from proxy.adapters.tool_calls.output import Output
from proxy.adapters.tool_calls.python import Python
from proxy.adapters.tool_calls.quiet import Quiet
from proxy.adapters.tool_calls.tools import Tools
from proxy.adapters.tool_calls.tree import Tree
from proxy.adapters.tool_calls.values import between, values


class Reader(Protocol):
    """What reads one call from behind its opening."""

    done: bool

    @property
    def held(self) -> int: ...

    def read(self, text: str, at: int, ended: bool) -> int: ...

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text ends inside the call; `rest` is what was not read of it."""


class ToolScanner:
    """Text in, events out; `finish` once after the last `feed`."""

    def __init__(
        self,
        format: Format,
        tools: Tools,
        *,
        new_id: Callable[[], str],
        unknown_tools: Literal["forward", "text"] | None = None,
        trigger: str | None = None,
        single: bool = False,
        named: str | None = None,
    ) -> None:
        """`named` makes this the only known tool, `single` drops every call but the first."""
        tools = tools if named is None else tools.only(named)
        self._places = places(format)
        if format.trigger and trigger:
            self._places = triggered(self._places, trigger)
        self._lock = format.lock
        self._output = Output(tools, new_id, unknown_tools=unknown_tools, single=single)
        self._reader: Reader | None = None
        self._in_wrap = False
        self._tail = ""
        self.held_high_water = 0

    @property
    def calls(self) -> int:
        return self._output.calls

    @property
    def unknown(self) -> int:
        return self._output.unknown

    @property
    def repaired(self) -> int:
        return self._output.repaired

    @property
    def dropped(self) -> int:
        return self._output.dropped

    @property
    def busy(self) -> bool:
        """Is the text that comes next inside a call?"""
        return self._reader is not None or self._in_wrap

    @property
    def leads(self) -> frozenset[str]:
        """What a call can begin with."""
        return self._places.certain_leads

    def opens(self, text: str, at: int, ended: bool) -> bool | More:
        """Does a call begin here for sure, name and all? Asked where text is not content yet."""
        for opening in self._places.certain:
            found = opening.pattern.match(text, at, ended)
            if found is MORE:
                return MORE
            if found is not None and self._trusted(opening, found):
                return True
        return False

    def _trusted(self, opening: Opening, found: "re.Match[str]") -> bool:
        """Special tokens are never prose; elsewhere the name must be a tool's."""
        tools = self._output.tools
        return opening.format.special_tokens or not len(tools) or tools.knows(self._name(opening, found))

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        if self._tail:
            text = self._tail + text
        at = self._scan(text, 0, ended=False)
        self._tail = text[at:]
        self._measure()
        return self._output.take()

    def finish(self, truncated: bool = False) -> list[Event]:
        """The events of what was held back; `truncated` says the model was cut off."""
        text, self._tail = self._tail, ""
        at = self._scan(text, 0, ended=True)
        if self._reader is not None:
            self._reader.finish(text[at:], truncated=truncated)
            self._reader = None
        self._output.finish()
        return self._output.take()

    def _scan(self, text: str, at: int, *, ended: bool) -> int:
        while at < len(text):
            reader = self._reader
            if reader is None:
                at, certain = self._text(text, at, ended)
                if not certain:
                    return at
                continue
            at = reader.read(text, at, ended)
            if not reader.done:
                return at
            self._reader = None
        return at

    def _text(self, text: str, at: int, ended: bool) -> tuple[int, bool]:
        """Content: where it stopped, and whether that is because a call begins."""
        start = at
        openings = self._openings()
        while (candidate := openings.first.search(text, at)) is not None:
            at = candidate.start()
            if at > start:
                self._output.text(text[start:at])
                start = at
                openings = self._openings()
            opening = self._opening(openings.all, text, at, ended)
            if opening is MORE:
                return at, False
            if ended and opening is None and self._is_cut_mark(openings.all, text, at):
                return len(text), False
            if opening is None:
                at += 1
                continue
            start = at = self._enter(*opening)
            if opening[0].act is not Act.DROP:
                return at, True
            openings = self._openings()
        self._output.text(text[start:])
        return len(text), False

    def _openings(self) -> Openings:
        if self._output.blank and self._output.calls:
            return self._places.behind
        if self._in_wrap:
            return self._places.wrap
        return self._places.late if self._output.calls else self._places.text

    def _opening(
        self, openings: tuple[Opening, ...], text: str, at: int, ended: bool
    ) -> "tuple[Opening, re.Match[str]] | More | None":
        """The first opening that is certain here, or may become so."""
        for opening in openings:
            found = opening.pattern.match(text, at, ended)
            if found is MORE:
                return MORE
            if found is not None and self._may(opening, found):
                return opening, found
        return None

    def _is_cut_mark(self, openings: tuple[Opening, ...], text: str, at: int) -> bool:
        """Is this the beginning of a mark that would have been nobody's text?"""
        return any(
            opening.place is Place.BEHIND
            and opening.act is Act.DROP
            and opening.pattern.match(text, at, False) is MORE
            for opening in openings
        )

    def _may(self, opening: Opening, found: "re.Match[str]") -> bool:
        if opening.act not in (Act.CALL, Act.JSON):
            return True
        return self._output.accepts(opening.format, self._name(opening, found))

    def _name(self, opening: Opening, found: "re.Match[str]") -> str:
        name = captures(found)["name"].strip()
        return self._output.tools.folded(name) if opening.format.fold else name

    def _enter(self, opening: Opening, found: "re.Match[str]") -> int:
        """Start what an opening leads to; where it begins to read."""
        self._in_wrap = (self._in_wrap or opening.wraps) and not opening.unwraps
        match opening.act:
            case Act.DROP:
                self._output.forget_space()
            case Act.OBJECT:
                bare = opening.bare and not (self._in_wrap and opening.place is Place.BEHIND)
                self._reader = Objects(opening.format, self._output, found[0], bare=bare)
            case Act.QUIET:
                self._reader = Quiet(opening.format, self._output, found[0])
            case Act.PYTHON:
                self._reader = Python(opening.format, self._output, found[0], bare=opening.bare)
            case _:
                self._reader = self._call(opening, found)
                if self._lock:
                    self._places, self._lock = places(opening.format), False
        return found.end()

    def _call(self, opening: Opening, found: "re.Match[str]") -> Reader:
        format, output, name = opening.format, self._output, self._name(opening, found)
        output.start(name, native_id(format, captures(found)))
        if opening.act is Act.JSON:
            return JsonArguments(output, cdata=format.cdata)
        match format.body:
            case Body.BRACES:
                return Braces(format, output)
            case Body.TREE:
                return Tree(format, output, name)
            case _:
                return Elements(format, output, name, wrapped=self._in_wrap)

    def _measure(self) -> None:
        held = len(self._tail) + (self._reader.held if self._reader is not None else 0)
        if held > self.held_high_water:
            self.held_high_water = held


def prepare(format: Format) -> None:
    """Compile a format's patterns: tens of milliseconds that no request should wait for."""
    places(format)
    for each in (format, *format.also):
        if each.body is Body.ELEMENTS:
            between(each)
            values(each, wrapped=True)
            values(each, wrapped=False)


def native_id(format: Format, found: dict[str, str]) -> str:
    """The id that the model wrote, in the shape its template wants; empty if it wrote none."""
    try:
        return format.native_id.format(**found)
    except KeyError:
        return ""
