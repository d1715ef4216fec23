"""The arguments of one native call, on their way through.

They pass as they are written. What is mended is what engines are known to get wrong:
no arguments at all, `null`, an object in place of its text, a line break left raw
inside a string, more text behind the end, and an end that never came.
"""

from typing import Any

import orjson

from proxy.adapters.tool_calls.json_text import JsonText
from proxy.wire.openai import encoded

# What is kept of one call to see at its end whether it is a JSON object; longer arguments are not judged.
MAX_JUDGED_CHARS = 1024 * 1024


class NativeArguments:
    """`take` each piece, `end` once; `mended` says whether anything came other than it should."""

    __slots__ = ("_is_lost", "_json", "_kept", "_size", "is_blank", "mended")

    def __init__(self) -> None:
        self.is_blank = True
        self.mended = False
        self._json = JsonText()
        self._is_lost = False  # it is no JSON that could be followed, and passes as it comes
        self._kept: list[str] = []
        self._size = 0

    @property
    def is_whole(self) -> bool:
        """Nothing but another call can follow."""
        return self._json.done and not self._is_lost

    def take(self, text: str) -> str:
        """What to write for the next piece."""
        if self.is_blank:
            word = text.strip()
            if word == "null":
                self.mended = True
                return ""
            if not word:
                return text
            self.is_blank = False
        written = text if self._is_lost else self._read(text)
        if self._size <= MAX_JUDGED_CHARS:
            self._kept.append(written)
            self._size += len(written)
        return written

    def end(self, *, truncated: bool) -> str:
        """What makes them whole. A call that was cut stays cut: the answer says so itself."""
        if truncated:
            return ""
        if self.is_blank:
            self.mended = True
            self._kept.append("{}")
            return "{}"
        if self._is_lost or self._json.done:
            return ""
        rest = self._json.closing() or ""
        self.mended = self.mended or bool(rest)
        self._kept.append(rest)
        return rest

    @property
    def is_object(self) -> bool:
        """Asked at the end; what was too long to be kept gets the benefit of the doubt."""
        if self._size > MAX_JUDGED_CHARS:
            return True
        try:
            return isinstance(orjson.loads("".join(self._kept)), dict)
        except orjson.JSONDecodeError:
            return False

    def _read(self, text: str) -> str:
        written: list[str] = []
        at = 0 if self._json.done else self._json.read(text, 0, written.append)
        if self._json.broken:
            self._is_lost = True
            return text
        rest = text[at:]
        if self._json.done and rest.strip():
            self.mended = True
            rest = ""
        self.mended = self.mended or self._json.repaired
        return "".join(written) + rest


def text_of_arguments(value: Any) -> str:
    """Arguments as the text that they should be."""
    if isinstance(value, str):
        return value
    return "" if value is None else encoded(value).decode("utf-8", "replace")
