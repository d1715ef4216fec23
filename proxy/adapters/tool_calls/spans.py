"""Where a stretch of literals ends, found without reading them.

Brackets and strings are followed from piece to piece; the text itself is parsed
once, when all of it is there.
"""

import re

from proxy.adapters.tool_calls.literals import MAX_DEPTH

_OPENING, _CLOSING = "([{", ")]}"


class Span:
    """Follows text up to the first of `ends` that stands outside every bracket and string."""

    def __init__(self, ends: str, *, quotes: str = "'\"", triple: bool = True, mark: str = "") -> None:
        """`mark` encloses strings without escapes; `triple` says that quotes may stand in threes."""
        self.done = False
        self.broken = False
        self._ends = ends
        self._triple = triple
        self._mark = mark
        self._quote = ""
        self._depth = 0
        self._outside = re.compile("[" + re.escape(ends + _OPENING + _CLOSING + quotes + mark[:1]) + "]")
        self._quotes = quotes

    def read(self, text: str, at: int, ended: bool) -> int:
        """Where the text is understood up to; if `done`, that is the end itself."""
        length = len(text)
        while at < length and not self.done:
            before = at
            at = self._in_string(text, at, ended) if self._quote else self._beside(text, at, ended)
            if at == before:
                break
        return at

    def _beside(self, text: str, at: int, ended: bool) -> int:
        found = self._outside.search(text, at)
        if found is None:
            return len(text)
        at, character = found.start(), found[0]
        if self._mark and self._mark.startswith(text[at : at + len(self._mark)]):
            return self._open(self._mark, text, at, ended)
        if character in self._quotes:
            return self._open_quote(character, text, at, ended)
        if not self._depth and character in self._ends:
            self.done = True
            return at
        self._depth += (character in _OPENING) - (character in _CLOSING)
        if not 0 <= self._depth <= MAX_DEPTH:
            self.done = self.broken = True
            return at
        return at + 1

    def _open(self, quote: str, text: str, at: int, ended: bool) -> int:
        if not text.startswith(quote, at) and not ended:
            return at
        self._quote = quote
        return at + len(quote)

    def _open_quote(self, quote: str, text: str, at: int, ended: bool) -> int:
        if self._triple:
            begun = text[at : at + 3]
            if begun == quote * 3:
                return self._open(begun, text, at, ended)
            if begun == text[at:] and begun == quote * len(begun) and not ended:
                return at
        return self._open(quote, text, at, ended)

    def _in_string(self, text: str, at: int, ended: bool) -> int:
        quote = self._quote
        end = text.find(quote[0], at)
        escape = text.find("\\", at, end if end >= 0 else len(text)) if quote != self._mark else -1
        if escape >= 0:
            return escape + 2 if escape + 1 < len(text) or ended else escape
        if end < 0:
            return len(text)
        if text.startswith(quote, end):
            self._quote = ""
            return end + len(quote)
        if quote.startswith(text[end:]) and not ended:
            return end
        return end + 1
