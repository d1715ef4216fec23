"""A JSON value in pieces that are JSON whenever they end: what was said can always be closed.

A model's JSON goes to the client while it is written, so a mistake in it cannot be
taken back. A key waits for its value and a comma for what follows it; texts stream.
What fits nowhere ends the value there. Mended are the slips that leave no doubt:
raw line breaks and backslashes in texts, a comma too many, a value left out, a
bracket forgotten inside another, Python's words for true, false and null.
"""

import json
import re
from collections.abc import Callable

# Deeper arguments exist in no tool's schema; a run of `[` must not fill our memory.
MAX_DEPTH = 128
# A key with the space around it, and a number: what waits is bounded by these.
MAX_WAITING = 64 * 1024
MAX_SCALAR = 4096

Sink = Callable[[str], object]

_IN_STRING = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_SPACE = re.compile(r"\s*+")
_WORD = re.compile(r"[-+.0-9A-Za-z]*+")
_SCALAR = re.compile(r"(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)\Z", re.ASCII)
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_CLOSERS = {"{": "}", "[": "]"}

# What may come next.
_KEY, _FIRST_KEY, _COLON, _VALUE, _ITEM, _FIRST_ITEM, _NEXT = range(7)
_STARTS = (_VALUE, _ITEM, _FIRST_ITEM)


class JsonStream:
    """Reads an object, a list or a text; the caller has seen its first character."""

    __slots__ = (
        "_expect",
        "_in_string",
        "_is_key",
        "_stack",
        "_waiting",
        "_waits",
        "broken",
        "done",
        "repaired",
    )

    def __init__(self) -> None:
        self.done = False
        self.broken = False  # it ended where it should not
        self.repaired = False
        self._stack: list[str] = []
        self._expect = _VALUE
        self._in_string = False
        self._is_key = False
        self._waiting: list[str] = []
        self._waits = 0

    def read(self, text: str, at: int, sink: Sink, *, ended: bool = False) -> int:
        """Pass on what is certain and return where it stopped: at a cut token, or behind the value."""
        while at < len(text) and not self.done:
            before = at
            at = self._string(text, at, sink) if self._in_string else self._token(text, at, sink, ended)
            if at == before:
                break
        return at

    def closing(self) -> str:
        """What makes a cut value whole."""
        return ('"' if self._in_string and not self._is_key else "") + "".join(reversed(self._stack))

    @property
    def left(self) -> str:
        """What waited for a value that never came."""
        return "".join(self._waiting)

    # strings

    def _string(self, text: str, at: int, sink: Sink) -> int:
        found = _IN_STRING.match(text, at)
        end = found.end() if found else at
        if end == len(text):
            self._say(text[at:end], sink)
        elif text[end] == '"':
            end += 1
            self._say(text[at:end], sink)
            self._end_string()
        elif text[end] != "\\":
            self._mend(text[at:end] + json.dumps(text[end])[1:-1], sink)
            end += 1
        elif _CUT_ESCAPE.match(text, end) is None:
            # JSON has no such escape: the backslash is one, except before a quote that needs none.
            is_quote = text.startswith("'", end + 1)
            self._mend(text[at:end] + ("'" if is_quote else "\\\\"), sink)
            end += 2 if is_quote else 1
        else:
            self._say(text[at:end], sink)
        return end

    def _mend(self, text: str, sink: Sink) -> None:
        self.repaired = True
        self._say(text, sink)

    def _say(self, text: str, sink: Sink) -> None:
        if not text:
            return
        if not self._is_key:
            sink(text)
            return
        self._wait(text)
        if self._waits > MAX_WAITING:
            self.done = self.broken = True

    def _end_string(self) -> None:
        self._in_string = False
        self._expect = _COLON if self._is_key else _NEXT
        self.done = not self._stack
        self._is_key = False

    # everything else

    def _token(self, text: str, at: int, sink: Sink, ended: bool) -> int:
        found = _SPACE.match(text, at)
        here = found.end() if found else at
        if here > at and self._waits < MAX_WAITING:
            self._wait(text[at:here])
        if here == len(text):
            return here
        token, expect = text[here], self._expect
        if token == '"' and expect in (_KEY, _FIRST_KEY):
            self._is_key = self._in_string = True
            self._wait(token)
        elif token == ":" and expect == _COLON:
            self._wait(token)
            self._expect = _VALUE
        elif token in ",}]":
            return self._close(token, here, sink)
        elif expect not in _STARTS:
            return self._break(here)
        elif token == '"':
            self._begin(token, sink)
            self._in_string = True
        elif token in _CLOSERS:
            self._begin(token, sink)
            self._stack.append(_CLOSERS[token])
            self._expect = _FIRST_KEY if token == "{" else _FIRST_ITEM
            if len(self._stack) > MAX_DEPTH:
                return self._break(here + 1)
        else:
            return self._scalar(text, here, sink, ended)
        return here + 1

    def _scalar(self, text: str, at: int, sink: Sink, ended: bool) -> int:
        found = _WORD.match(text, at)
        end = found.end() if found else at
        if end == len(text) and not ended and end - at <= MAX_SCALAR:
            return at
        word = text[at:end]
        if word in _PYTHON:
            word = _PYTHON[word]
            self.repaired = True
        if not _SCALAR.match(word):
            return self._break(at)
        self._begin(word, sink)
        self._expect = _NEXT
        return end

    def _close(self, token: str, at: int, sink: Sink) -> int:
        """A comma or a closing bracket, perhaps in place of a value."""
        if self._expect == _VALUE and self._stack:
            self._begin("null", sink)
            self._expect = _NEXT
            self.repaired = True
        if token == ",":
            if self._expect != _NEXT:
                return self._break(at)
            self._wait(token)
            self._expect = _KEY if self._stack[-1] == "}" else _ITEM
            return at + 1
        if self._expect == _COLON or token not in self._stack:
            return self._break(at)
        if self._expect in (_KEY, _ITEM):
            self._drop()
            self.repaired = True
        closed = ""
        while not closed.endswith(token):
            closed += self._stack.pop()
        self.repaired = self.repaired or len(closed) > 1
        self._begin(closed, sink)
        self._expect = _NEXT
        self.done = not self._stack
        return at + 1

    def _break(self, at: int) -> int:
        self.done = self.broken = True
        return at

    # what waits

    def _wait(self, text: str) -> None:
        self._waiting.append(text)
        self._waits += len(text)

    def _begin(self, token: str, sink: Sink) -> None:
        """What waited is certain now."""
        if self._waiting:
            self._waiting.append(token)
            token = "".join(self._waiting)
            self._drop()
        sink(token)

    def _drop(self) -> None:
        self._waiting.clear()
        self._waits = 0
