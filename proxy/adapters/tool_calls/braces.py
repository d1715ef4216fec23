"""Arguments in braces whose strings stand between marks of their own, as Gemma writes them."""

from json.encoder import encode_basestring as quoted

from proxy.adapters.scanning_pattern import MORE, SPACE, Either, Lit, Pattern, Run, Seq, captures, skip_space
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.literals import Dialect, Literals, NotALiteral
from proxy.adapters.tool_calls.output import Arguments, Output
from proxy.adapters.tool_calls.spans import Span
from proxy.adapters.tool_calls.steps import Steps

# Lists and objects are held until they are whole; a longer one goes out as a string.
MAX_HELD = 1024 * 1024


class Braces(Steps):
    """Reads one call from its opening brace to its closing one."""

    def __init__(self, format: Format, output: Output) -> None:
        super().__init__(self._brace)
        self._output = output
        self._mark = format.quote
        self._dialect = Dialect(mark=format.quote, bare=True)
        key = Either(
            Seq(Lit(format.quote), Run(r"[^<>]", name="key"), Lit(format.quote)),
            Seq(Lit('"'), Run(r'[^"\\]', name="key"), Lit('"')),
            Run(r'[^\s:,{}<>"]', name="key"),
        )
        self._key_pattern = Pattern(Seq(key, SPACE, Lit(":")))
        self._mark_pattern = Pattern(Lit(format.quote))
        self._written = Arguments(output)
        self._span = Span("")
        self._held: list[str] = []
        self._size = 0

    @property
    def held(self) -> int:
        return self._size

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over inside the braces."""
        if truncated:
            self._output.end(complete=False)
            self.done = True
            return
        if self._step == self._string:
            self._output.arguments('"')
        elif self._step in (self._value, self._other):
            self._close_other()
        self._output.repaired += 1
        self._close()

    def _brace(self, text: str, at: int, ended: bool) -> int:
        self._step = self._key
        return skip_space(text, at) + 1

    def _key(self, text: str, at: int, ended: bool) -> int:
        at = skip_space(text, at)
        if at == len(text):
            return at
        if text[at] == ",":
            return at + 1
        if text[at] == "}":
            self._close()
            return at + 1
        found = self._key_pattern.match(text, at, False)
        if found is MORE:
            return at
        if found is None:
            self._output.repaired += 1
            self._close()
            return at
        self._written.key(captures(found)["key"].strip())
        self._step = self._value
        return found.end()

    def _value(self, text: str, at: int, ended: bool) -> int:
        at = skip_space(text, at)
        if at == len(text):
            return at
        found = self._mark_pattern.match(text, at, False)
        if found is MORE:
            return at
        if found is not None:
            self._output.arguments('"')
            self._step = self._string
            return found.end()
        self._span = Span(",}", quotes='"', triple=False, mark=self._mark)
        self._step = self._other
        return at

    def _string(self, text: str, at: int, ended: bool) -> int:
        stop, found = self._mark_pattern.find(text, at, ended)
        self._output.arguments(quoted(text[at:stop])[1:-1])
        if found is None:
            return stop
        self._output.arguments('"')
        self._step = self._key
        return found.end()

    def _other(self, text: str, at: int, ended: bool) -> int:
        stop = self._span.read(text, at, ended)
        self._held.append(text[at:stop])
        self._size += stop - at
        if self._span.done or self._size > MAX_HELD:
            self._close_other()
            self._step = self._key
        return stop

    def _close_other(self) -> None:
        raw = "".join(self._held).strip()
        self._held.clear()
        self._size = 0
        literals = Literals(raw, self._dialect)
        try:
            value = literals.value()
            if not literals.ended():
                value = quoted(raw)
        except NotALiteral:
            value = quoted(raw)
        self._output.arguments(value)

    def _close(self) -> None:
        self._written.close()
        self._output.end()
        self.done = True
