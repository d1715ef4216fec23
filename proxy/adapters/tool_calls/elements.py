"""Arguments written as XML elements, their text raw.

Strings stream while they are open. Everything else waits for its end, because
only the whole text shows how it is spelled in JSON. The markup of a whole call
inside a value is skipped with its own ends; what nothing follows is always the
real end.
"""

import re
from json.encoder import encode_basestring as quoted

from proxy.adapters.scanning_pattern import MORE, captures, skip_space
from proxy.adapters.tool_calls.coerce import conform, decode, encode, may_be_other, object_text
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.output import Arguments, Output
from proxy.adapters.tool_calls.steps import Steps
from proxy.adapters.tool_calls.tools import STRING
from proxy.adapters.tool_calls.values import between, values

# A value that is not a string is held until its end shows what it is. Objects and
# lists of arguments are a few KB; a longer one goes out as the string it is.
MAX_HELD = 1024 * 1024
# What is no list and no object shows within this what it is: the longest number that is read.
MAX_UNDECIDED = 4096

ANYTHING: frozenset[str] = frozenset()


class Elements(Steps):
    """Reads one call from behind its head to its end."""

    def __init__(self, format: Format, output: Output, name: str, *, wrapped: bool) -> None:
        super().__init__(self._between)
        self._format = format
        self._output = output
        self._name = name
        self._wrapped = wrapped
        self._between_values = between(format)
        self._key_ends = any("{key}" in end for end in format.argument_end)
        self._typed = any("{type}" in head for head in format.argument)
        self._values = values(format, wrapped=self._wrapped)
        self._written = Arguments(output)
        self._lone: tuple[str, str] | None = None  # an argument that may hold all of them
        self._key = ""
        self._types = STRING
        self._held: list[str] | None = None
        self._size = 0
        self._undecided = False
        self._depth = 0  # how many calls inside the value are open
        self._behind_nested = False

    @property
    def held(self) -> int:
        """How much text waits for the end of its value."""
        return self._size if self._held is not None else 0

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over in the middle of the call."""
        if truncated:
            self._output.end(complete=False)
            self.done = True
            return
        if self._step != self._between:
            self._close_value()
        self._output.repaired += 1
        self._close()

    # between values

    def _between(self, text: str, at: int, ended: bool) -> int:
        """The next argument, or the end of the call. What a cut left of a tag waits for `finish`."""
        at = skip_space(text, at)
        patterns = self._between_values
        argument = patterns.argument.match(text, at, False)
        if argument is MORE:
            return at
        if argument is not None:
            self._open_value(captures(argument))
            return argument.end()
        end = patterns.call_end.match(text, at, False)
        if end is MORE:
            return at
        if end is not None:
            self._close()
            return end.end()
        if patterns.wrap_end.match(text, at, False) is MORE:
            return at
        # The wrap ends, or what should not be here begins.
        self._output.repaired += 1
        self._close()
        return at

    def _open_value(self, found: dict[str, str]) -> None:
        self._write_lone()
        self._key = key = found["key"].strip()
        self._depth = self._size = 0
        if self._key_ends:
            self._values = values(self._format, wrapped=self._wrapped, key=key)
        self._types = self._types_of(found)
        self._undecided = "string" in self._types and self._types != STRING
        if self._types == STRING and not self._may_be_lone():
            self._held = None
            self._written.key(key)
            self._output.arguments('"')
        else:
            self._held = []
        self._step = self._first_break if self._format.trim else self._value

    def _types_of(self, found: dict[str, str]) -> frozenset[str]:
        if not self._typed:
            return self._output.tools.types(self._name, self._key)
        return STRING if found.get("type") == self._format.type_words[0] else ANYTHING

    def _may_be_lone(self) -> bool:
        if self._key not in self._format.unwrap or self._written.keys:
            return False
        return not self._output.tools.has(self._name, self._key)

    # inside a value

    def _first_break(self, text: str, at: int, ended: bool) -> int:
        self._step = self._value
        return at + 1 if text[at] == "\n" else at

    def _value(self, text: str, at: int, ended: bool) -> int:
        if self._depth:
            return self._nested_value(text, at, ended)
        if self._behind_nested:
            return self._nested_wrap_end(text, at, ended)
        stop, found = self._values.stop.find(text, at, ended)
        if ended and (cut := self._cut_end(text, at)) is not None:
            stop, found = cut.start(), cut
        if stop > at:
            self._take(text[at:stop])
        if found is None:
            return stop
        if self._values.nested.match(text, stop, ended):
            self._depth = 1
        elif not self._is_forgotten_end(text, stop, ended):
            self._close_value()
            self._step = self._between
            taken = self._values.taken.match(text, stop)
            return taken.end() if taken else stop
        end = max(found.end(), stop + 1)
        self._take(text[stop:end])
        return end

    def _cut_end(self, text: str, at: int) -> "re.Match[str] | None":
        """The closing tag of a value, where the text was cut in what makes it certain."""
        stop, found = self._values.stop.find(text, at, False)
        return self._values.tag.match(text, stop) if found is None else None

    def _is_forgotten_end(self, text: str, at: int, ended: bool) -> bool:
        """Is this the head of something that cannot be the tool's next argument?"""
        if text[at] != "\n":
            return False
        head = self._between_values.argument.match(text, at + 1, ended)
        if head is None or head is MORE:
            return False
        key = captures(head)["key"].strip()
        tools = self._output.tools
        if key == self._key or key in self._written.keys:
            return True
        return tools.describes(self._name) and not tools.has(self._name, key)

    def _nested_value(self, text: str, at: int, ended: bool) -> int:
        """Inside the markup of another call: its end is not ours, unless nothing follows."""
        start = at
        while (candidate := self._values.marks.search(text, at)) is not None:
            at = candidate.start()
            last = self._values.last.match(text, at, ended)
            nested = self._values.nested.match(text, at, ended)
            end = self._between_values.call_end.match(text, at, ended)
            if last is MORE or nested is MORE or end is MORE:
                break
            if last is not None:
                self._depth = 0
                break
            if nested is not None:
                self._depth += 1
                at = nested.end()
            elif end is not None:
                self._depth -= 1
                at = end.end()
                if not self._depth:
                    self._behind_nested = True
                    break
            else:
                at += 1
        else:
            at = len(text)
        self._take(text[start:at])
        return at

    def _nested_wrap_end(self, text: str, at: int, ended: bool) -> int:
        """The wrap of a call inside the value ends with it."""
        end = self._values.unwrapped.match(text, at)
        self._behind_nested = False
        if end is None:
            return self._value(text, at, ended)
        self._take(end[0])
        return end.end()

    def _take(self, text: str) -> None:
        """More of the value."""
        if self._held is None:
            self._output.arguments(quoted(text)[1:-1])
            return
        self._held.append(text)
        self._size += len(text)
        if self._undecided:
            self._decide("".join(self._held)[:MAX_UNDECIDED])
        elif self._size > MAX_HELD:
            self._output.repaired += 1
            self._stream()

    def _decide(self, text: str) -> None:
        """A string that cannot become any other type need not wait."""
        may = may_be_other(text, self._types)
        if may is False or (may is None and self._size > MAX_UNDECIDED):
            self._stream()
        elif may is True:
            self._undecided = False

    def _stream(self) -> None:
        pieces, self._held, self._undecided = self._held or [], None, False
        self._written.key(self._key)
        self._output.arguments('"' + quoted("".join(pieces))[1:-1])

    # ends

    def _close_value(self) -> None:
        if self._held is None:
            self._output.arguments('"')
            return
        raw, self._held = "".join(self._held), None
        if self._types:
            schema = self._output.tools.arguments(self._name).of(self._key)
            value = conform(encode(raw, self._types), schema)
        else:
            value = decode(raw)
        if self._may_be_lone():
            self._lone = self._key, value
            return
        self._written.key(self._key)
        self._output.arguments(value)

    def _write_lone(self) -> None:
        if self._lone is not None:
            key, value = self._lone
            self._lone = None
            self._written.key(key)
            self._output.arguments(value)

    def _close(self) -> None:
        whole = object_text(self._lone[1]) if self._lone is not None else None
        if whole is not None:
            self._output.arguments(whole)
        else:
            self._write_lone()
            self._written.close()
        self._output.end()
        self.done = True
