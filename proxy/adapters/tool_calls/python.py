"""Calls in Python's syntax: a list of them, or one per line.

A call is read when its closing parenthesis has come; its arguments are literals
only, and anything else gives the text back.
"""

import re

from proxy.adapters.scanning_pattern import MORE, SPACE, Ahead, Either, End, Lit, Pattern, Run, Seq, maybe
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.literals import Literals, NotALiteral
from proxy.adapters.tool_calls.openings import PYTHON_NAME
from proxy.adapters.tool_calls.output import Output, pairs
from proxy.adapters.tool_calls.spans import Span
from proxy.adapters.tool_calls.steps import KeptSteps

# What opened the list, or separates the calls, has seen a whole head ahead.
_HEAD = re.compile(rf"({PYTHON_NAME}+)\s*\(")
_NEXT = Pattern(
    Seq(SPACE, Either(Lit(","), Lit(";"), Seq()), SPACE, Ahead(Seq(Run(PYTHON_NAME), SPACE, Lit("("))))
)
_LIST_END = Pattern(Seq(SPACE, maybe(Lit(","), SPACE), Lit("]")))
_LISTED = Pattern(Seq(SPACE, Ahead(Either(Lit(","), Lit("]"), End()))))
_KEYWORD = re.compile(r"\s*([A-Za-z_]\w*)\s*=")


class Python(KeptSteps):
    """Reads calls until the list of them ends."""

    def __init__(self, format: Format, output: Output, opened: str, *, bare: bool) -> None:
        super().__init__(self._head, output, opened)
        self._format = format
        self._bare = bare
        self._first = bare and output.blank
        self._name = ""
        self._inside: list[str] = []
        self._arguments: dict[str, str] = {}
        self._span = Span(")")

    @property
    def held(self) -> int:
        return self._size

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over inside a call, or behind the last one of a list."""
        if self._step == self._closed:
            self._commit()
        else:
            self._raw.append(rest)
            self._give_back()

    def _head(self, text: str, at: int, ended: bool) -> int:
        found = _HEAD.match(text, at)
        if found is None or not self._accepts(found[1]):
            self._give_back()
            return at
        self._name = found[1]
        self._inside = []
        self._span = Span(")")
        self._step = self._parentheses
        return found.end()

    def _accepts(self, name: str) -> bool:
        tools = self._output.tools
        if self._bare and not self._first and len(tools) and not tools.knows(name):
            return False
        return self._output.accepts(self._format, name)

    def _parentheses(self, text: str, at: int, ended: bool) -> int:
        stop = self._span.read(text, at, ended)
        self._inside.append(text[at:stop])
        if not self._span.done:
            return stop
        try:
            self._arguments = keywords("".join(self._inside))
        except NotALiteral:
            self._span.broken = True
        if self._span.broken:
            self._raw.append(text[at:stop])
            self._give_back()
            return stop
        self._step = self._closed
        return stop + 1

    def _closed(self, text: str, at: int, ended: bool) -> int:
        """Behind the parenthesis: without a wrap, only a list's comma or end makes it a call."""
        found = _LISTED.match(text, at, ended) if self._bare else True
        if found is MORE:
            return at
        if found is None:
            self._give_back()
            return at
        self._commit()
        self._step = self._behind
        return at

    def _commit(self) -> None:
        self._raw.clear()
        self._size = 0
        self._output.start(self._name)
        pairs(self._output, self._arguments)
        self._output.end()

    def _behind(self, text: str, at: int, ended: bool) -> int:
        following = _NEXT.match(text, at, ended)
        end = _LIST_END.match(text, at, ended)
        if following is MORE or end is MORE:
            return at
        if following is not None:
            self._step = self._head
            return following.end()
        self.done = True
        return at if end is None else end.end()


def keywords(text: str) -> dict[str, str]:
    """The keyword arguments between a call's parentheses, each as JSON."""
    literals = Literals(text)
    found: dict[str, str] = {}
    while not literals.ended():
        keyword = _KEYWORD.match(text, literals.at)
        if keyword is None:
            raise NotALiteral("no keyword")
        literals.at = keyword.end()
        found[keyword[1]] = literals.value()
        if not literals.taken(",") and not literals.ended():
            raise NotALiteral("no comma")
    return found
