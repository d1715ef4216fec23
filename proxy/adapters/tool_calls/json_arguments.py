"""The JSON arguments of a call that has begun.

Nothing but a string that holds JSON is decoded: the rest goes through as it is
written, as far as it is JSON.
"""

from collections.abc import Callable

from proxy.adapters.tool_calls.coerce import object_text
from proxy.adapters.tool_calls.json_stream import JsonStream
from proxy.adapters.tool_calls.output import Output

# What may wait: a string that holds JSON. A longer one passes as it is.
MAX_HELD = 1024 * 1024

# How `]]>` is written inside a CDATA section.
SPLIT = "]]]]><![CDATA[>"


class JsonArguments:
    """The arguments of a call that has begun: an object, a string holding one, or nothing."""

    def __init__(self, output: Output, *, cdata: bool = False) -> None:
        """`cdata`: the JSON stands in a CDATA section."""
        self.done = False
        self._output = output
        self._cdata = cdata
        self._json = JsonStream()
        self._begun = False
        self._coded: list[str] | None = None
        self._size = 0

    @property
    def held(self) -> int:
        return self._size

    def read(self, text: str, at: int, ended: bool) -> int:
        """Take what is certain and return where it stopped."""
        if not self._begun:
            # What opened the call has seen this character ahead.
            self._begun = True
            self._coded = [] if text[at] == '"' else None
            if text[at] not in '{"':
                self._output.arguments("{}")
                self._end()
                return at
        read = self._read_section if self._cdata else self._json.read
        at = read(text, at, self._take)
        if self._json.done:
            self._finish_value(tag=text.startswith("<", at))
        return at

    def _read_section(self, text: str, at: int, sink: Callable[[str], object]) -> int:
        """The same through a CDATA section, where `]]>` was split over two."""
        while (split := text.find(SPLIT, at)) >= 0:
            used = self._json.read(text[at:split] + "]]>", 0, sink)
            if self._json.done:
                return min(at + used, split)
            at = split + len(SPLIT)
        return self._json.read(text[: _may_split(text)], at, sink)

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over inside the arguments."""
        if self.done:
            return
        self._json.read(rest, 0, self._take, ended=True)
        if truncated:
            self._output.end(complete=False)
            self.done = True
            return
        self._json.broken = True
        self._finish_value(tag=True)

    def _take(self, text: str) -> None:
        if self._coded is None:
            self._output.arguments(text)
            return
        self._coded.append(text)
        self._size += len(text)
        if self._size > MAX_HELD:
            self._output.arguments("".join(self._coded))
            self._coded = None

    def _finish_value(self, *, tag: bool) -> None:
        """What came is made whole. Behind it stands markup, or else what fits nowhere is text."""
        value = self._json
        left = "" if tag or not value.broken else value.left
        if self._coded is not None:
            raw = "".join(self._coded)
            whole = object_text(raw)
            self._output.arguments("{}" if whole is None else whole)
            left = raw if whole is None else ""
        elif value.broken:
            self._output.arguments(value.closing())
        self._output.repaired += value.broken or value.repaired
        self._end()
        if left.strip(" \t\r\n,"):
            self._output.text(left)

    def _end(self) -> None:
        self._size = 0
        self._output.end()
        self.done = True


def _may_split(text: str) -> int:
    """Where the text is certain up to: its end may be the beginning of a split."""
    for length in range(min(len(SPLIT) - 1, len(text)), 0, -1):
        if text.endswith(SPLIT[:length]):
            return len(text) - length
    return len(text)
