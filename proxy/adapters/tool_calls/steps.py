"""Reading step by step, as far as the text goes that has come."""

from collections.abc import Callable

from proxy.adapters.tool_calls.output import Output

# What may wait before a call is certain. Beyond it the text goes back as it came. Calls have a few KB, those
# that write a file as many as the file has.
MAX_KEPT = 1024 * 1024

# Takes the text, where to begin, and whether the text ends there; returns where it stopped.
Step = Callable[[str, int, bool], int]


class Steps:
    """`_step` reads on, and may put another one in its place."""

    def __init__(self, first: Step) -> None:
        self.done = False
        self._step = first

    def read(self, text: str, at: int, ended: bool) -> int:
        """Take what is certain and return where it stopped."""
        while not self.done and at < len(text):
            before, step = at, self._step
            at = step(text, at, ended)
            self._has_read(text, before, at)
            if at == before and step == self._step:
                break
        return at

    def _has_read(self, text: str, start: int, end: int) -> None:
        """For those who need the text once more."""


class KeptSteps(Steps):
    """Keeps what was read, because all of it can go back to content until a call is certain."""

    def __init__(self, first: Step, output: Output, opened: str) -> None:
        super().__init__(first)
        self._output = output
        self._raw = [opened]
        self._size = 0

    def _has_read(self, text: str, start: int, end: int) -> None:
        if self.done or end == start:
            return
        self._raw.append(text[start:end])
        self._size += end - start
        if self._size > MAX_KEPT:
            self._give_back()

    def _give_back(self) -> None:
        """No call after all."""
        self._output.text("".join(self._raw))
        self._raw.clear()
        self._size = 0
        self.done = True
