"""Splits a model's thinking from its answer.

Whether an answer begins inside the thinking is a fact about the prompt, not the
text: templates of many models write the opening tag themselves. So the start
state comes from configuration, and the text only says where the thinking ends.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from proxy.adapters.events import Event, Reasoning, Text
from proxy.adapters.reasoning_families import KINDS, ReasoningFamily
from proxy.adapters.scanning_pattern import (
    MAX_SPACE,
    MORE,
    SPACE,
    End,
    Lit,
    More,
    Pattern,
    Seq,
    any_of,
    candidates,
    maybe,
    skip_space,
)

__all__ = ["KINDS", "Judge", "ReasoningFamily", "ReasoningSplitter"]


# Behind one of these a tag is a word that the answer talks about.
_QUOTES = "`'\""


class Judge(Protocol):
    """Says whether a tool call begins somewhere: a model may forget to end its thinking."""

    @property
    def busy(self) -> bool: ...

    @property
    def leads(self) -> frozenset[str]: ...

    def opens(self, text: str, at: int, ended: bool) -> bool | More: ...


class Literals:
    """Judges by the marks alone, where no tool scanner can do better."""

    def __init__(self, marks: Pattern) -> None:
        self._pattern = marks
        self.leads = marks.leads
        self.busy = False

    def opens(self, text: str, at: int, ended: bool) -> bool | More:
        found = self._pattern.match(text, at, ended)
        return MORE if found is MORE else found is not None


@dataclass(frozen=True, slots=True)
class Patterns:
    """A family's tags, compiled."""

    open: Pattern
    close: Pattern
    later: Pattern  # what counts behind the beginning of the content
    ended_by: Pattern
    answer: Pattern
    answer_end: Pattern


@lru_cache(maxsize=64)
def _patterns(family: ReasoningFamily) -> Patterns:
    return Patterns(
        open=Pattern(any_of(family.open)),
        close=Pattern(any_of(family.close)),
        later=Pattern(any_of(family.open + family.close if family.anywhere else family.close)),
        ended_by=Pattern(any_of(family.ended_by)),
        answer=Pattern(any_of(family.answer)),
        answer_end=Pattern(Seq(maybe(Lit("\n")), any_of(family.answer_end), SPACE, End())),
    )


class ReasoningSplitter:
    """Text in, `Reasoning` and `Text` out; `finish` once after the last `feed`."""

    def __init__(
        self,
        family: ReasoningFamily,
        *,
        start_in_reasoning: bool | None = None,
        calls: Judge | None = None,
        marks: bool = False,
    ) -> None:
        """`calls` judges what looks like a tool call; `marks` keeps the tags in the thinking."""
        self._family = family
        self._patterns = patterns = _patterns(family)
        self._marks = marks or family.append
        self._trim = family.trim if not self._marks else "none"
        self.judged_by(calls if calls is not None else Literals(patterns.ended_by))
        self._events: list[Event] = []
        self._tail = ""
        self._said = False  # has this block of thinking begun?
        self._thought = False  # has there been one?
        self._space = ""  # white space that is nobody's if the block ends here
        self._long_space = False
        self._before = " "  # the last character of content
        self._step: Callable[[str, int, bool], int] = self._leading
        if family.starts_inside if start_in_reasoning is None else start_in_reasoning:
            self._step = self._titled if family.title else self._thinking
        if family.append:
            self._step = self._thinking
            self._events.append(Reasoning(family.open[0]))

    def judged_by(self, calls: Judge) -> None:
        """Who says what is a tool call from now on."""
        self._calls = calls
        self._candidates = candidates(self._patterns.open.leads | self._patterns.close.leads | calls.leads)

    @property
    def passing(self) -> bool:
        """Is the rest of the answer content, whatever it says?"""
        return self._step == self._content and not self._tail

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        return list(self.split(text))

    def finish(self, truncated: bool = False) -> list[Event]:
        """The events of what was held back."""
        return list(self.split("", ended=True))

    def split(self, text: str, *, ended: bool = False) -> Iterator[Event]:
        """The same, one event at a time: what follows may depend on what a call's scanner makes of it."""
        text, self._tail = self._tail + text, ""
        at = 0
        moved = True
        while moved and at < len(text):
            before, step = at, self._step
            at = step(text, at, ended)
            moved = at != before or step != self._step
            yield from self._take()
        self._tail = text[at:]
        yield from self._take()

    def _take(self) -> list[Event]:
        events = self._events
        if events:
            self._events = []
        return events

    # inside the thinking

    def _titled(self, text: str, at: int, ended: bool) -> int:
        """A title belongs to the opening tag."""
        title = self._family.title
        begun = text[at : at + len(title)]
        if begun == title:
            at += len(begun)
            if self._marks:
                self._say(title)
        elif title.startswith(begun) and not ended:
            return at
        self._step = self._thinking
        return at

    def _thinking(self, text: str, at: int, ended: bool) -> int:
        start = at
        while (candidate := self._candidates.search(text, at)) is not None:
            at = candidate.start()
            close = self._patterns.close.match(text, at, ended)
            opened = self._patterns.open.match(text, at, ended)
            called = self._calls.opens(text, at, ended)
            if close is MORE or opened is MORE or called is MORE:
                self._think(text[start:at])
                return at
            if close is not None or called:
                self._think(text[start:at])
                return self._end(close) or at
            if opened is not None and self._is_repeated(text[start:at]):
                start = at = opened.end()
                self._space = ""
                if self._family.title:
                    self._step = self._titled
                    return at
            else:
                at += 1
        self._think(text[start:])
        return len(text)

    def _is_repeated(self, before: str) -> bool:
        """Did the prompt and the model both open the block?"""
        if self._said or before.strip():
            return False
        return self._family.append or not self._marks

    def _think(self, text: str) -> None:
        """More thinking; white space waits, since at an end it is nobody's."""
        if self._marks:
            self._say(text)
            return
        text = self._space + text
        if not self._said:
            if not text or text.isspace():
                self._wait(text)
                return
            if self._trim == "space":
                text = text.lstrip("\r\n")
        said = self._without_end(text)
        self._long_space = self._long_space and not said
        self._say(said)
        self._wait(text[len(said) :])

    def _without_end(self, text: str) -> str:
        """Without what would be the closing tag's if that came next."""
        match self._trim:
            case "space":
                return text.rstrip()
            case "line":
                return text.removesuffix("\n")
            case _:
                return text

    def _wait(self, space: str) -> None:
        self._space = space
        if self._long_space or len(space) > MAX_SPACE:
            self._long_space = self._said = True
            self._say(space)
            self._space = ""

    def _say(self, text: str) -> None:
        if text:
            self._said = True
            self._events.append(Reasoning(text))

    def _end(self, close: "re.Match[str] | None") -> int:
        """The block is over; behind its closing tag, or at what ended it."""
        if self._marks and close is not None:
            self._say(close[0])
        self._space = ""
        self._said = self._long_space = False
        self._thought = True
        self._step = self._leading
        return close.end() if close is not None else 0

    # outside

    def _leading(self, text: str, at: int, ended: bool) -> int:
        """Before the first word of the answer: the thinking may begin, or begin again."""
        here = skip_space(text, at)
        if here == len(text) and here - at <= MAX_SPACE:
            if ended and not self._thought:
                self._events.append(Text(text[at:]))
            return here if ended else at
        for pattern, follow in (
            (self._patterns.open, self._begin),
            (self._patterns.close, self._ignore),
            (self._patterns.answer, self._begin_answer),
        ):
            found = pattern.match(text, here, ended)
            if found is MORE and here - at <= MAX_SPACE:
                return at
            if found is not None and found is not MORE:
                follow(found)
                return found.end()
        space = text[at:here]
        if self._thought and self._trim == "space":
            space = space.lstrip("\r\n")
        elif self._thought and self._trim == "line":
            space = space.removeprefix("\n")
        if space:
            self._events.append(Text(space))
        self._step = self._content
        if self._family.anywhere or self._family.absorb:
            self._step = self._marked
        elif self._family.answer_end and self._thought:
            self._step = self._answering
        return here

    def _begin(self, found: "re.Match[str]") -> None:
        if self._marks:
            self._events.append(Reasoning(found[0]))
        self._said = False
        self._step = self._titled if self._family.title else self._thinking

    def _ignore(self, found: "re.Match[str]") -> None:
        """An end of what never began."""
        if self._marks:
            self._events.append(Text(found[0]))

    def _begin_answer(self, found: "re.Match[str]") -> None:
        self._thought = True

    def _answering(self, text: str, at: int, ended: bool) -> int:
        """The answer stands in tags of its own."""
        stop, found = self._patterns.answer_end.find(text, at, ended)
        if stop > at:
            self._events.append(Text(text[at:stop]))
        return stop if found is None else len(text)

    def _marked(self, text: str, at: int, ended: bool) -> int:
        """Content in which the tags still count, unless a call is being written or prose quotes them."""
        stop, found = self._patterns.later.find(text, at, ended)
        if stop > at:
            self._before = text[stop - 1]
            self._events.append(Text(text[at:stop]))
            return stop
        if found is None:
            return at
        if self._calls.busy or (self._before in _QUOTES and not self._family.anywhere):
            self._events.append(Text(found[0]))
        elif found[0] in self._family.open:
            self._begin(found)
        return found.end()

    def _content(self, text: str, at: int, ended: bool) -> int:
        self._events.append(Text(text[at:]))
        return len(text)
