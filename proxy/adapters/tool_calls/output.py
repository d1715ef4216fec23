"""Where the readers of a format say what they found.

It turns their words into events, keeps the counters, and knows the three things
that hold for every format: white space alone is not content beside a call, a
call that the request does not allow is dropped or given back, and arguments are
one JSON object.
"""

from collections.abc import Callable, Mapping
from json.encoder import encode_basestring as quoted

from proxy.adapters.events import CallArguments, CallEnd, CallStart, Event, Text
from proxy.adapters.scanning_pattern import MAX_SPACE
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.tools import Tools

# The OpenAI API allows 128 tools in a request; an answer with more calls than
# that is a model in a loop.
MAX_CALLS = 128


class Output:
    """The events of one answer."""

    def __init__(
        self,
        tools: Tools,
        new_id: Callable[[], str],
        *,
        unknown_tools: str | None = None,
        single: bool = False,
    ) -> None:
        self.tools = tools
        self.calls = 0
        self.unknown = 0
        self.repaired = 0
        self.dropped = 0
        self._new_id = new_id
        self._unknown_tools = unknown_tools
        self._limit = 1 if single else MAX_CALLS
        self._events: list[Event] = []
        self._pieces: list[str] = []
        self._ids: set[str] = set()
        self._open = False  # the pieces are arguments, not text
        self._muted = False
        self._blank = True
        self._space: list[str] = []
        self._spaces = 0

    # text

    def text(self, text: str) -> None:
        """Content. Leading white space waits: before a call it is nobody's."""
        if not self._blank:
            self._pieces.append(text)
            return
        self._space.append(text)
        self._spaces += len(text)
        if self._spaces <= MAX_SPACE and (not text or text.isspace()):
            return
        self._blank = False
        self._pieces += self._space
        self.forget_space()

    @property
    def blank(self) -> bool:
        """Is there nothing but white space since the start or the last call?"""
        return self._blank

    def forget_space(self) -> None:
        """Drop the white space that waits: a mark follows it."""
        self._space.clear()
        self._spaces = 0

    # calls

    def accepts(self, format: Format, name: str) -> bool:
        """May this become a call, or is it to stay text?"""
        policy = self._unknown_tools or format.unknown_tools
        return policy == "forward" or self.tools.knows(name)

    def start(self, name: str, native_id: str = "") -> None:
        """A call is certain."""
        self._flush()
        self.forget_space()
        self._blank = True
        self._open = True
        self._muted = self.calls >= self._limit
        if self._muted:
            self.dropped += 1
            return
        if not self.tools.knows(name):
            self.unknown += 1
        self._events.append(CallStart(self.calls, self._id(native_id), name))
        self.calls += 1

    def _id(self, native: str) -> str:
        """The id that the model gave, unless it gave it before."""
        id = native if native and native not in self._ids else self._new_id()
        self._ids.add(id)
        return id

    def arguments(self, text: str) -> None:
        if not self._muted and text:
            self._pieces.append(text)

    def end(self, *, complete: bool = True) -> None:
        """The call is over; `complete` says that its arguments are whole."""
        self._flush()
        self._open = False
        if complete and not self._muted:
            self._events.append(CallEnd(self.calls - 1))
        self._muted = False

    # events

    def take(self) -> list[Event]:
        """What has been said since the last time."""
        if self._pieces:
            self._flush()
        events = self._events
        if events:
            self._events = []
        return events

    def finish(self) -> None:
        """White space that waited for a call is content if no call ever came."""
        if self._space and not self.calls:
            self._pieces += self._space
        self.forget_space()

    def _flush(self) -> None:
        if not self._pieces:
            return
        text = self._pieces[0] if len(self._pieces) == 1 else "".join(self._pieces)
        self._pieces.clear()
        if not text:
            return
        if self._open:
            self._events.append(CallArguments(self.calls - 1, text))
        else:
            self._events.append(Text(text))


class Arguments:
    """The arguments of one call, written key by key as one JSON object."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._next = "{"
        self.keys: set[str] = set()

    def key(self, key: str) -> None:
        self.keys.add(key)
        self._output.arguments(f"{self._next}{quoted(key)}: ")
        self._next = ", "

    def close(self) -> None:
        self._output.arguments("{}" if self._next == "{" else "}")


def pairs(output: Output, arguments: Mapping[str, str]) -> None:
    """Write arguments whose JSON spellings are all known."""
    written = Arguments(output)
    for key, value in arguments.items():
        written.key(key)
        output.arguments(value)
    written.close()
