"""What may begin a call, and where.

An opening is certain only with what must follow it: the head of a call with its
first argument, a wrap with a call inside. Until then its text may still go back
to content.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Protocol

from proxy.adapters.scanning_pattern import (
    MORE,
    SPACE,
    Ahead,
    Atom,
    Either,
    End,
    Lit,
    More,
    Pattern,
    Run,
    Seq,
    any_of,
    candidates,
    maybe,
    skip_space,
    template,
)
from proxy.adapters.tool_calls.format import Body, Format

PYTHON_NAME = r"[A-Za-z0-9_.-]"
# Keys that show a bare JSON object to be a call rather than an answer in JSON.
_CALL_KEYS = ("type", "id", "index", "function")


# The first character of an object with what JSON has behind it.
OBJECT_BEGINS = Seq(Lit("{"), SPACE, Ahead(Either(Lit('"'), Lit("}"), End())))


class Act(Enum):
    """What an opening leads to."""

    CALL = "call"  # a head with a name was read, the body of the format follows
    JSON = "json"  # the same, but the arguments are one JSON object
    OBJECT = "object"  # a JSON object with name and arguments follows
    PYTHON = "python"  # a call in Python's syntax follows
    QUIET = "quiet"  # text in which no call can begin follows
    DROP = "drop"  # a mark that is nobody's text


class Place(Enum):
    """Where an opening counts."""

    TEXT = "text"
    WRAP = "wrap"  # only in an open wrap
    LATE = "late"  # only once a call has come
    BEHIND = "behind"  # only directly behind a call


class Matcher(Protocol):
    """A `Pattern`, or one with a trigger before it."""

    @property
    def leads(self) -> frozenset[str]: ...

    def match(self, text: str, at: int, ended: bool) -> "re.Match[str] | More | None": ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What may begin in text."""

    format: Format
    act: Act
    pattern: Matcher
    place: Place = Place.TEXT
    wraps: bool = False  # it opened a wrap
    unwraps: bool = False  # it closed one
    bare: bool = False  # nothing but the call itself says that it is one


@dataclass(frozen=True, slots=True)
class Openings:
    """What may begin at one place; `first` finds the candidates."""

    first: re.Pattern[str]
    all: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """The openings of a format, by where a text stands."""

    text: Openings
    late: Openings
    wrap: Openings
    behind: Openings
    certain: tuple[Opening, ...]  # openings up to and with the name
    certain_leads: frozenset[str]


@lru_cache(maxsize=64)
def places(format: Format) -> Places:
    """The openings of a format and of what it lists beside itself; compiled once."""
    openings: list[Opening] = []
    certain: list[Opening] = []
    for each in (format, *format.also):
        builder = _Builder(each)
        openings += builder.openings()
        if each.quiet is None:
            certain += builder.certain()
    return _sorted(openings, certain)


def triggered(places: Places, trigger: str) -> Places:
    """The same, but what begins in text begins with the trigger; in the thinking nothing does."""
    openings = [
        replace(opening, pattern=_Triggered(trigger, opening.pattern))
        if opening.place is Place.TEXT and opening.act not in (Act.DROP, Act.QUIET)
        else opening
        for opening in places.behind.all
    ]
    return _sorted(openings, [])


def _sorted(openings: list[Opening], certain: list[Opening]) -> Places:
    def at(*places: Place) -> Openings:
        return _openings([opening for opening in openings if opening.place in places])

    return Places(
        text=at(Place.TEXT),
        late=at(Place.TEXT, Place.LATE),
        wrap=at(Place.TEXT, Place.LATE, Place.WRAP),
        behind=_openings(openings),
        certain=tuple(certain),
        certain_leads=frozenset().union(*(opening.pattern.leads for opening in certain)),
    )


def _openings(openings: list[Opening]) -> Openings:
    leads = frozenset().union(*(opening.pattern.leads for opening in openings))
    return Openings(candidates(leads), tuple(openings))


class _Triggered:
    """A pattern behind a literal of one request; not compiled, since it is used once."""

    def __init__(self, trigger: str, pattern: Matcher) -> None:
        self._trigger = trigger
        self._pattern = pattern
        self.leads = frozenset((trigger,))

    def match(self, text: str, at: int, ended: bool) -> "re.Match[str] | More | None":
        begun = text[at : at + len(self._trigger)]
        if begun != self._trigger:
            return MORE if self._trigger.startswith(begun) and not ended else None
        here = skip_space(text, at + len(begun))
        return self._pattern.match(text, here, ended)


class _Builder:
    """The openings of one format, put together from its tags."""

    def __init__(self, format: Format) -> None:
        self.format = format
        self.wrap = tags(format, format.wrap)
        self.wrap_end = tags(format, format.wrap_end)
        self.call_end = tags(format, format.call_end)

    def opening(self, act: Act, atom: Atom, place: Place = Place.TEXT, *, wraps: bool = False) -> Opening:
        return Opening(self.format, act, Pattern(atom), place, wraps)

    def openings(self) -> Iterable[Opening]:
        format = self.format
        if format.objects or format.body is Body.OBJECTS:
            yield from self.objects()
        if format.call:
            yield from self.heads()
        if format.body is Body.PYTHON:
            yield from self.python()
        if format.call_end:
            yield self.opening(Act.DROP, self.call_end, Place.BEHIND)
        if format.wrap_end:
            yield replace(self.opening(Act.DROP, self.wrap_end, Place.BEHIND), unwraps=True)
        if format.drop:
            yield self.opening(Act.DROP, tags(format, format.drop))
        if format.drop_late:
            yield self.opening(Act.DROP, tags(format, format.drop_late), Place.LATE)
        if format.quiet is not None:
            yield self.opening(Act.QUIET, Lit(format.quiet[0]))
        if format.special_tokens and format.wrap and format.wrap_end:
            yield self.opening(Act.DROP, Seq(self.wrap, SPACE, self.wrap_end))

    def heads(self) -> Iterable[Opening]:
        """The head of a call, certain once what must follow it does."""
        call = tags(self.format, self.format.call)
        for act, follows in self.follows():
            head = Seq(call, SPACE, Ahead(follows))
            if self.format.wrap:
                yield self.opening(act, Seq(self.wrap, SPACE, head), wraps=True)
            yield self.opening(act, head, Place.TEXT if self.format.bare else Place.WRAP)

    def follows(self) -> Iterable[tuple[Act, Atom]]:
        argument = tags(self.format, self.format.argument, capture=False)
        match self.format.body:
            case Body.JSON:
                yield Act.JSON, Either(OBJECT_BEGINS, Lit('"'), self.call_end)
            case Body.BRACES:
                yield Act.CALL, Lit("{")
            case _:
                yield Act.CALL, Either(argument, self.call_end, self.wrap_end)
                if self.format.objects:
                    yield Act.JSON, OBJECT_BEGINS

    def objects(self) -> Iterable[Opening]:
        """JSON objects in the wrap, in a list there, or one behind the other."""
        format = self.format
        keys = (*format.name_keys, *format.arguments_keys, *_CALL_KEYS)
        shown = Seq(Lit("{"), SPACE, any_of(f'"{key}"' for key in keys), SPACE, Lit(":"))
        first: Atom = Ahead(shown if format.bare and format.body is Body.OBJECTS else Lit("{"))
        again = Seq(Either(Lit(","), Lit(";"), Seq()), SPACE, first)
        listed = Seq(maybe(Lit("["), SPACE), first)
        if format.wrap:
            yield self.opening(Act.OBJECT, Seq(self.wrap, SPACE, listed), wraps=True)
        yield replace(self.opening(Act.OBJECT, again, Place.BEHIND), bare=format.bare)
        if format.bare and format.body is Body.OBJECTS:
            yield replace(self.opening(Act.OBJECT, listed), bare=True)
        yield self.opening(Act.DROP, Either(Lit("]"), Lit("}")), Place.BEHIND)

    def python(self) -> Iterable[Opening]:
        first = Ahead(Seq(Run(PYTHON_NAME), SPACE, Lit("(")))
        listed = Seq(self.wrap, SPACE, maybe(Lit("["), SPACE), first)
        yield self.opening(Act.PYTHON, listed, wraps=True)
        if self.format.bare:
            yield replace(self.opening(Act.PYTHON, Seq(Lit("["), SPACE, first)), bare=True)
        yield self.opening(Act.DROP, Lit("]"), Place.BEHIND)

    def certain(self) -> Iterable[Opening]:
        """What shows beyond doubt that a call begins, name included."""
        for opening in self.heads() if self.format.call else ():
            if opening.place is Place.TEXT:
                yield opening
        if not self.format.wrap:
            return
        if self.format.objects or self.format.body is Body.OBJECTS:
            keys = any_of(f'"{key}"' for key in self.format.name_keys)
            name = Seq(Lit('"'), Run(r'[^"\\]', name="name"), Lit('"'))
            opened = Seq(self.wrap, SPACE, maybe(Lit("["), SPACE), Lit("{"), SPACE)
            yield self.opening(Act.OBJECT, Seq(opened, keys, SPACE, Lit(":"), SPACE, name))
        if self.format.body is Body.PYTHON:
            opened = Seq(self.wrap, SPACE, maybe(Lit("["), SPACE))
            yield self.opening(Act.PYTHON, Seq(opened, Run(PYTHON_NAME, name="name"), SPACE, Lit("(")))


def tags(format: Format, spellings: Iterable[str], *, capture: bool = True, **given: str) -> Either:
    """Any of these spellings; `given` fills in what is known already."""
    kinds = {
        "name": format.name_of,
        "key": format.key_of,
        "n": r"[^\s<>|]",
        "id": r"[A-Za-z0-9_-]",
        "channel": r"[a-z]",
    }
    filled = (_filled(text, given) for text in spellings)
    return Either(*(template(text, kinds, capture=capture) for text in filled))


def _filled(text: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        text = text.replace(f"{{{name}}}", value)
    return text
