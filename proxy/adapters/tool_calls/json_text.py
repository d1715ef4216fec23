"""One JSON value in pieces, passed through as it is written.

Braces, quotes and escapes are all that is needed to know where it ends; nothing
is parsed and written again, so numbers keep their digits and keys their order.
The one repair is for line breaks and tabs that models leave raw inside strings.
"""

import json
import re
from collections.abc import Callable

# Deeper arguments exist in no tool's schema; a run of `[` must not fill our memory.
MAX_DEPTH = 128

_IN_STRING = re.compile(r'["\\\x00-\x1f]')
_OUTSIDE = re.compile(r'["{}\[\]:,<]|[^\s"{}\[\]:,<]+')
_CLOSERS = {"{": "}", "[": "]"}
_SCALAR = re.compile(r"(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)\Z", re.ASCII)
_MAX_SCALAR = 64


class JsonText:
    """Reads an object, a list or a string; the caller has seen its first character."""

    __slots__ = ("_escaped", "_last", "_scalar", "_stack", "_string", "broken", "done", "repaired")

    def __init__(self) -> None:
        self.done = False
        self.broken = False
        self.repaired = False
        self._stack: list[str] = []
        self._string = False
        self._escaped = False
        self._last = ""  # the last token outside strings: `{`, `[`, `:`, `,`, "key" or "value"
        self._scalar = ""

    def read(self, text: str, at: int, sink: Callable[[str], object]) -> int:
        """Pass on what belongs to the value and return where it stopped."""
        start, length = at, len(text)
        while at < length and not self.done:
            if self._escaped:
                self._escaped = False
                at += 1
            elif self._string:
                found = _IN_STRING.search(text, at)
                if found is None:
                    at = length
                    break
                at = found.end()
                if text[at - 1] < " ":
                    sink(text[start : at - 1] + json.dumps(text[at - 1])[1:-1])
                    start = at
                    self.repaired = True
                else:
                    self._in_string(text[at - 1])
            else:
                found = _OUTSIDE.search(text, at)
                if found is None:
                    at = length
                    break
                at = self._outside(found)
        if at > start:
            sink(text[start:at])
        return at

    def closing(self) -> str | None:
        """What would make a cut value whole, or None where nothing simple would."""
        ends = "".join(reversed(self._stack))
        if self._string:
            is_key = self._last in ("{", ",") and self._stack[-1:] == ["}"]
            return None if is_key or self._escaped else '"' + ends
        if self._last == "value" and self._scalar and not _SCALAR.match(self._scalar):
            return None
        return ends if self._last in ("value", "{", "[") else None

    def _in_string(self, character: str) -> None:
        if character == "\\":
            self._escaped = True
            return
        self._string = False
        is_key = self._last in ("{", ",") and self._stack[-1:] == ["}"]
        self._last = "key" if is_key else "value"
        self._scalar = ""
        self.done = not self._stack

    def _outside(self, found: "re.Match[str]") -> int:
        token = found[0]
        if token == '"':
            self._string = True
        elif token in _CLOSERS:
            self._stack.append(_CLOSERS[token])
            self._last = token
            self.done = self.broken = len(self._stack) > MAX_DEPTH
        elif token in ("}", "]"):
            if self._stack and self._stack.pop() != token:
                self.broken = True
            self._last, self._scalar = "value", ""
            self.done = not self._stack
        elif token == "<":
            # No JSON has it outside a string: a tag ends what the model left open.
            self.done = self.broken = True
            return found.start()
        elif token in (":", ","):
            self._last = token
        else:
            self._scalar = (self._scalar + token if self._last == "value" else token)[:_MAX_SCALAR]
            self._last = "value"
        return found.end()
