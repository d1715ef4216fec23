"""Patterns that know when they might still match.

`re` answers "yes" or "no"; a stream needs a third answer: "ask again when there
is more text". A pattern is built from a few atoms, each of which writes two
regular expressions: one for the whole of it, one for its beginnings. A verdict
is given only when no longer text could change it, which is what makes a scanner
say the same however its input was cut.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import count
from typing import Final, Protocol

# White space between two tags. Models write a line break and some indentation;
# a longer run is not the space between two tags, and holding more of it back
# would let an answer of blanks fill our memory.
MAX_SPACE = 1024
# Names and keys. The OpenAI API allows 64 characters in a function's name.
MAX_NAME = 256


class More(Enum):
    """The third answer of `Pattern.match`."""

    MORE = "more"


MORE: Final = More.MORE


class Atom(Protocol):
    """One part of a pattern."""

    def whole(self, ended: bool) -> str:
        """The expression for all of it; `ended` says that no more text will come."""

    def beginnings(self) -> str:
        """The expression for every text that longer text could still complete."""

    def leads(self) -> frozenset[str]:
        """The literals it can begin with; none where it can be empty."""


@dataclass(frozen=True, slots=True)
class Lit:
    """Exactly this text."""

    text: str

    def whole(self, ended: bool) -> str:
        return re.escape(self.text)

    def beginnings(self) -> str:
        nested = ""
        for character in reversed(self.text[:-1]):
            nested = f"(?:{re.escape(character)}{nested})?"
        return nested

    def leads(self) -> frozenset[str]:
        return frozenset((self.text,))


@dataclass(frozen=True, slots=True)
class Run:
    """A run of characters of a class such as `[^<>]`, captured if it has a name."""

    of: str
    least: int = 1
    most: int = MAX_NAME
    name: str = ""

    def whole(self, ended: bool) -> str:
        run = f"{self.of}{{{self.least},{self.most}}}"
        return f"(?P<{self.name}>{run})" if self.name else run

    def beginnings(self) -> str:
        return f"{self.of}{{0,{self.most}}}"

    def leads(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more comes."""

    def whole(self, ended: bool) -> str:
        return r"\Z" if ended else r"(?!)"

    def beginnings(self) -> str:
        return ""

    def leads(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Never:
    """What a format does not have."""

    def whole(self, ended: bool) -> str:
        return r"(?!)"

    def beginnings(self) -> str:
        return r"(?!)"

    def leads(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class Ahead:
    """What must follow without being taken; only as the last atom of a pattern."""

    atom: Atom

    def whole(self, ended: bool) -> str:
        return f"(?={self.atom.whole(ended)})"

    def beginnings(self) -> str:
        return self.atom.beginnings()

    def leads(self) -> frozenset[str]:
        return self.atom.leads()


@dataclass(frozen=True, slots=True, init=False)
class Seq:
    """One after the other."""

    atoms: tuple[Atom, ...]

    def __init__(self, *atoms: Atom) -> None:
        object.__setattr__(self, "atoms", atoms)

    def whole(self, ended: bool) -> str:
        return "".join(atom.whole(ended) for atom in self.atoms)

    def beginnings(self) -> str:
        nested = ""
        for position, atom in enumerate(reversed(self.atoms)):
            first = atom.beginnings()
            nested = f"(?:{atom.whole(False)}{nested}|{first})" if position else first
        return nested

    def leads(self) -> frozenset[str]:
        found: frozenset[str] = frozenset()
        for atom in self.atoms:
            found |= atom.leads()
            if not re.match(f"(?:{_numbered(atom.whole(True))})\\Z", ""):
                break
        return found


_NEVER = (Never(),)


@dataclass(frozen=True, slots=True, init=False)
class Either:
    """The first that fits."""

    atoms: tuple[Atom, ...]

    def __init__(self, *atoms: Atom) -> None:
        object.__setattr__(self, "atoms", atoms)

    def whole(self, ended: bool) -> str:
        return "(?:" + "|".join(atom.whole(ended) for atom in self.atoms or _NEVER) + ")"

    def beginnings(self) -> str:
        return "(?:" + "|".join(atom.beginnings() for atom in self.atoms or _NEVER) + ")"

    def leads(self) -> frozenset[str]:
        return frozenset().union(*(atom.leads() for atom in self.atoms))


SPACE: Final = Run(r"\s", 0, MAX_SPACE)


def maybe(*atoms: Atom) -> Either:
    """These atoms or nothing; never at a pattern's end, where the cut would decide."""
    return Either(Seq(*atoms), Seq())


def any_of(spellings: Iterable[str]) -> Either:
    """One of several literals, the longest first so that no beginning of another wins."""
    return Either(*(Lit(text) for text in sorted(spellings, key=len, reverse=True)))


class Pattern:
    """Atoms compiled: `match` at one place, `find` the first place."""

    __slots__ = ("_beginnings", "_ended", "_first", "_whole", "leads")

    def __init__(self, atom: Atom) -> None:
        self.leads = atom.leads()
        self._first = candidates(self.leads)
        self._whole = re.compile(_numbered(atom.whole(False)))
        self._ended = re.compile(_numbered(atom.whole(True)))
        self._beginnings = re.compile(f"(?:{_numbered(atom.beginnings())})\\Z")

    def match(self, text: str, at: int, ended: bool) -> "re.Match[str] | More | None":
        if ended:
            return self._ended.match(text, at)
        found = self._whole.match(text, at)
        if found is None and self._beginnings.match(text, at) is not None:
            return MORE
        return found

    def find(self, text: str, at: int, ended: bool) -> "tuple[int, re.Match[str] | None]":
        """Where text is safe up to, and the match that begins there if one does."""
        first = self._first.search
        while (candidate := first(text, at)) is not None:
            at = candidate.start()
            found = self.match(text, at, ended)
            if found is MORE:
                return at, None
            if found is not None:
                return at, found
            at += 1
        return len(text), None


def skip_space(text: str, at: int) -> int:
    """Where the white space at `at` ends."""
    length = len(text)
    while at < length and text[at].isspace():
        at += 1
    return at


def captures(found: "re.Match[str]") -> dict[str, str]:
    """What a match captured, by the names its atoms gave."""
    return {name.rsplit("_", 1)[0]: value for name, value in found.groupdict().items() if value is not None}


# One entry for each pattern and place of each format in use.
@lru_cache(maxsize=1024)
def candidates(leads: frozenset[str]) -> "re.Pattern[str]":
    """Finds where one of these begins, even where the text ends inside it."""
    # Every alternative begins with a literal character: then the search skips to those.
    by_first: dict[str, list[str]] = {}
    for lead in sorted(leads):
        by_first.setdefault(lead[0], []).append(lead[1:])
    alternatives = [f"{re.escape(first)}(?:{_whole_or_cut(rests)})" for first, rests in by_first.items()]
    return re.compile("|".join(alternatives) or "(?!)")


def _whole_or_cut(rests: list[str]) -> str:
    if "" in rests:
        return ""
    literals = any_of(rests)
    return f"{literals.whole(False)}|{literals.beginnings()}\\Z"


def template(text: str, kinds: Mapping[str, str], *, capture: bool = True) -> Seq:
    """The pattern of a tag written as in a format's table.

    `{name}` stands for a run of characters (their class is in `kinds`), white space
    for any white space, and an attribute `key="{name}"` takes every style of quotes.
    """
    atoms: list[Atom] = []
    for space, attribute, name, literal in _TEMPLATE.findall(text):
        captured = (attribute or name) if capture else ""
        if space:
            atoms.append(SPACE)
        elif attribute:
            atoms += _attribute(captured)
        elif name:
            atoms.append(Run(kinds.get(name, r"[^<>\n]"), name=captured))
        else:
            atoms.append(Lit(literal))
    return Seq(*atoms)


_TEMPLATE = re.compile(r'(\s+)|="\{(\w+)\}"|\{(\w+)\}|((?:[^\s{=]|=(?!"\{))+)')


def _attribute(name: str) -> Sequence[Atom]:
    quoted = [Seq(Lit(q), Run(f"[^{q}<>\\n]", name=name), Lit(q)) for q in ('"', "'")]
    bare = Run(r"""[^\s"'<>=/]""", name=name)
    return SPACE, Lit("="), SPACE, Either(*quoted, bare), SPACE


def _numbered(source: str) -> str:
    """Make group names unique: alternatives of one pattern capture the same thing."""
    number = count()
    return re.sub(r"\(\?P<(\w+)>", lambda found: f"(?P<{found[1]}_{next(number)}>", source)
