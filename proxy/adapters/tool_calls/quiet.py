"""Thinking that nothing has split off, in formats where markup in it is no call."""

from proxy.adapters.scanning_pattern import Pattern, any_of
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.output import Output


class Quiet:
    """Passes the thinking on as the content it is here."""

    def __init__(self, format: Format, output: Output, opened: str) -> None:
        self.done = False
        self.held = 0
        self._output = output
        self._end = Pattern(any_of((format.quiet or ("", ""))[1:]))
        output.text(opened)

    def read(self, text: str, at: int, ended: bool) -> int:
        stop, found = self._end.find(text, at, ended)
        self.done = found is not None
        if found is not None:
            stop = found.end()
        self._output.text(text[at:stop])
        return stop

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The thinking was never closed."""
