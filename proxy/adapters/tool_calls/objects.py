"""Calls written as JSON objects, the arguments beside the name."""

import re
from collections.abc import Callable

from proxy.adapters.scanning_pattern import MORE, SPACE, Lit, Pattern, Run, Seq, skip_space
from proxy.adapters.tool_calls.coerce import object_text
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.json_arguments import JsonArguments
from proxy.adapters.tool_calls.json_text import JsonText
from proxy.adapters.tool_calls.openings import OBJECT_BEGINS
from proxy.adapters.tool_calls.output import Output
from proxy.adapters.tool_calls.steps import KeptSteps

_PLAIN = r'[^"\\\x00-\x1f]'
_KEY = Pattern(Seq(Lit('"'), Run(_PLAIN, name="key"), Lit('"'), SPACE, Lit(":")))
_NAME = Pattern(Seq(Lit('"'), Run(_PLAIN, name="name"), Lit('"')))
_OBJECT = Pattern(OBJECT_BEGINS)
_NULL = Pattern(Lit("null"))
_SCALAR_END = re.compile(r"[\s,\]}]")


class Objects(KeptSteps):
    """A JSON object with a name and arguments, in any order.

    It becomes a call when its name is known and its arguments begin; until then
    all of it can go back to content.
    """

    def __init__(self, format: Format, output: Output, opened: str, *, bare: bool) -> None:
        super().__init__(self._brace, output, opened)
        self._format = format
        self._bare = bare
        self._held: list[str] = []
        self._name: str | None = None
        self._given: str | None = None  # arguments that came before the name
        self._value = JsonText()
        self._arguments: JsonArguments | None = None

    @property
    def held(self) -> int:
        return self._size if self._arguments is None else self._arguments.held

    def finish(self, rest: str, *, truncated: bool) -> None:
        """The text is over inside the object."""
        if self._arguments is None:
            self._raw.append(rest)
            self._give_back()
        else:
            self._arguments.finish(rest, truncated=truncated)
        self.done = True

    def _has_read(self, text: str, start: int, end: int) -> None:
        if self._arguments is None:
            super()._has_read(text, start, end)

    def _brace(self, text: str, at: int, ended: bool) -> int:
        self._step = self._key
        return at + 1

    def _key(self, text: str, at: int, ended: bool) -> int:
        here = skip_space(text, at)
        if here == len(text):
            return here
        if text[here] == "}":
            return self._end(text[at : here + 1], here + 1)
        found = _KEY.match(text, here, ended)
        if found is MORE:
            return here
        if found is None:
            return self._stray(at)
        self._step = self._value_of(found[1])
        if self._step == self._arguments_value and self._format.keyed and not self._accepts(found[1]):
            return self._stray(at)
        return found.end()

    def _value_of(self, key: str) -> Callable[[str, int, bool], int]:
        if self._format.keyed and self._name is None:
            self._name = key
            return self._arguments_value
        if key in self._format.name_keys and self._name is None:
            return self._name_value
        if key in self._format.arguments_keys and self._arguments is None and self._given is None:
            return self._arguments_value
        return self._other_value

    def _name_value(self, text: str, at: int, ended: bool) -> int:
        here = skip_space(text, at)
        found = _NAME.match(text, here, ended)
        if found is MORE:
            return here
        if found is None or not self._accepts(found[1]):
            return self._stray(at)
        self._name = found[1]
        self._step = self._behind_value
        if self._given is not None:
            self._commit_whole(self._given)
        return found.end()

    def _accepts(self, name: str) -> bool:
        tools = self._output.tools
        if self._bare and len(tools) and not tools.knows(name):
            return False
        return self._output.accepts(self._format, name)

    def _commit(self) -> JsonArguments:
        self._output.start(self._name or "")
        self._arguments = JsonArguments(self._output)
        self._raw.clear()
        self._size = 0
        return self._arguments

    def _commit_whole(self, arguments: str) -> None:
        """The arguments were known before the call was certain."""
        self._commit().done = True
        self._output.arguments(arguments)
        self._output.end()

    def _arguments_value(self, text: str, at: int, ended: bool) -> int:
        here = skip_space(text, at)
        if here == len(text):
            return here
        if text[here] in '{"' and (text[here] == '"' or self._name is None):
            self._given = ""
            self._value = JsonText()
            self._step = self._collected
            return here
        found = (_OBJECT if text[here] == "{" else _NULL).match(text, here, ended)
        if found is MORE:
            return here
        if found is None:
            return self._stray(at)
        if text[here] != "{":
            self._step = self._behind_value
            return found.end()
        self._commit()
        self._step = self._streamed
        return here

    def _streamed(self, text: str, at: int, ended: bool) -> int:
        assert self._arguments is not None
        at = self._arguments.read(text, at, ended)
        if self._arguments.done:
            self._step = self._behind_value
        return at

    def _collected(self, text: str, at: int, ended: bool) -> int:
        stop = self._value.read(text, at, self._held.append)
        if not self._value.done:
            return stop
        self._given = object_text("".join(self._held))
        if self._given is None or self._value.broken:
            self._raw.append(text[at:stop])
            return self._stray(stop)
        self._step = self._behind_value
        if self._name is not None:
            self._commit_whole(self._given)
        return stop

    def _other_value(self, text: str, at: int, ended: bool) -> int:
        here = skip_space(text, at)
        if here == len(text):
            return here
        if text[here] in '{["':
            self._value = JsonText()
            self._step = self._skipped
            return here
        found = _SCALAR_END.search(text, here)
        if found is None:
            return len(text)
        self._step = self._behind_value
        return found.start()

    def _skipped(self, text: str, at: int, ended: bool) -> int:
        at = self._value.read(text, at, len)
        if self._value.done:
            self._step = self._behind_value
        return at

    def _behind_value(self, text: str, at: int, ended: bool) -> int:
        here = skip_space(text, at)
        if here == len(text):
            return here
        if text[here] == ",":
            self._step = self._key
            return here + 1
        if text[here] == "}":
            return self._end(text[at : here + 1], here + 1)
        return self._stray(at if self._arguments is None else here)

    def _end(self, taken: str, at: int) -> int:
        """The object's own brace."""
        if self._arguments is None and self._name is not None and not self._bare:
            self._commit_whole("{}")
        if self._arguments is None:
            self._raw.append(taken)
            self._give_back()
        self.done = True
        return at

    def _stray(self, at: int) -> int:
        """Not JSON, or not a call."""
        if self._arguments is None:
            self._give_back()
        else:
            self._output.repaired += 1
        self.done = True
        return at
