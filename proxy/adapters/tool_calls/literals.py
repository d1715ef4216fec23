"""Literals of Python and of braces with marks of their own, written out as JSON.

Nothing is evaluated: this reads the few shapes that a value can have and refuses
everything else.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted

MAX_DEPTH = 128
# `int` of a huge number is quadratic; the interpreter's own limit is 4300 digits.
MAX_DIGITS = 4000

_WORDS = {"True": "true", "true": "true", "False": "false", "false": "false", "None": "null", "null": "null"}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?", re.ASCII)
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|(.))", re.DOTALL
)
_STRINGS = {
    quote: re.compile(rf"{quote}((?:[^\\]|\\.)*?){quote}", re.DOTALL) for quote in ("'", '"', "'''", '"""')
}
_SIMPLE = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": "",
    "\\": "\\", "'": "'", '"': '"', "/": "/",
}  # fmt: skip
_BARE_END = re.compile(r"[,}\]]")
_BARE_KEY = re.compile(r"[^\s:,{}\[\]\"']+")


class NotALiteral(ValueError):
    """The text is not a literal that we read."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the literals of formats."""

    # A mark around strings that hold no escapes, beside Python's quotes.
    mark: str = ""
    # Keys and strings may stand without quotes.
    bare: bool = False


PYTHON = Dialect()


class Literals:
    """Reads values from one text, from left to right."""

    def __init__(self, text: str, dialect: Dialect = PYTHON) -> None:
        self.text = text
        self.at = 0
        self._dialect = dialect
        self._depth = 0

    def space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def taken(self, token: str) -> bool:
        """Is this what comes next? Then it is behind us."""
        self.space()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def ended(self) -> bool:
        self.space()
        return self.at == len(self.text)

    def value(self) -> str:
        """The JSON of the next value."""
        self.space()
        if self._dialect.mark and self.taken(self._dialect.mark):
            return quoted(self._marked())
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"'):
            return quoted(self._strings())
        for opening, closing, read in (
            ("{", "}", self._mapping),
            ("[", "]", self._list),
            ("(", ")", self._tuple),
        ):
            if self.taken(opening):
                return self._nested(closing, read)
        return self._scalar()

    def key(self) -> str:
        """A key of a mapping, as text."""
        self.space()
        if self._dialect.mark and self.taken(self._dialect.mark):
            return self._marked()
        if self.text[self.at : self.at + 1] in ("'", '"'):
            return self._strings()
        found = (_BARE_KEY if self._dialect.bare else _NUMBER).match(self.text, self.at)
        if found is None:
            raise NotALiteral("no key")
        self.at = found.end()
        return found[0]

    def _nested(self, closing: str, read: Callable[[str], str]) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotALiteral("nested too deep")
        text = read(closing)
        self._depth -= 1
        return text

    def _mapping(self, closing: str) -> str:
        parts: list[str] = []
        while not self.taken(closing):
            key = self.key()
            if not self.taken(":"):
                raise NotALiteral("no colon")
            parts.append(f"{quoted(key)}: {self.value()}")
            self._separator(closing)
        return "{" + ", ".join(parts) + "}"

    def _list(self, closing: str) -> str:
        parts: list[str] = []
        while not self.taken(closing):
            parts.append(self.value())
            self._separator(closing)
        return "[" + ", ".join(parts) + "]"

    def _tuple(self, closing: str) -> str:
        """A list, or one value in parentheses."""
        parts: list[str] = []
        comma = False
        while not self.taken(closing):
            parts.append(self.value())
            before = self.at
            self._separator(closing)
            comma = comma or self.at > before
        return parts[0] if len(parts) == 1 and not comma else "[" + ", ".join(parts) + "]"

    def _separator(self, closing: str) -> None:
        if not self.taken(","):
            self.space()
            if not self.text.startswith(closing, self.at):
                raise NotALiteral("no comma")

    def _marked(self) -> str:
        end = self.text.find(self._dialect.mark, self.at)
        if end < 0:
            raise NotALiteral("a string without end")
        text = self.text[self.at : end]
        self.at = end + len(self._dialect.mark)
        return text

    def _strings(self) -> str:
        """One string, or several side by side, which Python joins."""
        text = self._string()
        self.space()
        while self.text[self.at : self.at + 1] in ("'", '"') and self.at < len(self.text):
            text += self._string()
            self.space()
        return text

    def _string(self) -> str:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            quote *= 3
        found = _STRINGS[quote].match(self.text, self.at)
        if found is None:
            raise NotALiteral("a string without end")
        self.at = found.end()
        return _joined(_ESCAPE.sub(_unescaped, found[1]))

    def _scalar(self) -> str:
        if self._dialect.bare:
            return self._bare()
        number = _NUMBER.match(self.text, self.at)
        word = _WORD.match(self.text, self.at)
        if number is not None:
            self.at = number.end()
            return _number(number[0])
        if word is None or word[0] not in _WORDS:
            raise NotALiteral("not a literal")
        self.at = word.end()
        return _WORDS[word[0]]

    def _bare(self) -> str:
        """A number, a word, or text without quotes."""
        found = _BARE_END.search(self.text, self.at)
        end = found.start() if found else len(self.text)
        text = self.text[self.at : end].strip()
        self.at = end
        if text in _WORDS:
            return _WORDS[text]
        number = _NUMBER.fullmatch(text)
        if number is None:
            return quoted(text)
        try:
            return _number(text)
        except NotALiteral:
            return quoted(text)


def _unescaped(found: "re.Match[str]") -> str:
    code = found[1] or found[2] or found[3]
    if code:
        return chr(int(code, 16)) if int(code, 16) < 0x110000 else found[0]
    if found[4]:
        return chr(int(found[4], 8))
    # What is no escape stays as it is, backslash and all: patterns and paths live on it.
    return _SIMPLE.get(found[5], found[0])


def _joined(text: str) -> str:
    """Two escapes may be the halves of one character."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _number(text: str) -> str:
    plain = text.replace("_", "")
    if plain.lstrip("+-").isdigit():
        if len(plain) > MAX_DIGITS:
            raise NotALiteral("too many digits")
        return str(int(plain))
    number = float(plain)
    if not math.isfinite(number):
        raise NotALiteral("not finite")
    return repr(number)
