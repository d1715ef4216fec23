"""Events as the deltas and messages of OpenAI's chat API."""

from collections.abc import Iterable, Mapping

from proxy.adapters.base import Emit
from proxy.adapters.events import CallArguments, CallEnd, CallStart, Event, Reasoning, Text
from proxy.wire.openai import Json

# The field that upstreams and clients know thinking by: DeepSeek's, and that of vLLM since 0.16.
REASONING_FIELDS = ("reasoning_content", "reasoning")

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": REASONING_FIELDS,
    "strip": (),
    "keep": (),
}


class Emitter:
    """Writes thinking where the client wants it."""

    __slots__ = ("_fields", "_keeps")

    def __init__(self, emit: Emit) -> None:
        self._fields = _FIELDS[emit]
        self._keeps = emit == "keep"

    def kept(self, events: list[Event]) -> list[Event]:
        """The events with thinking as text, where that is where it stays; neighbours of a kind as one."""
        if self._keeps:
            events = [Text(event.text) if isinstance(event, Reasoning) else event for event in events]
        return merged(events) if len(events) > 1 else events

    def deltas(self, events: list[Event]) -> list[Json]:
        """A delta for each event that a client sees."""
        found: list[Json] = []
        for event in events:
            match event:
                case Text(text):
                    found.append({"content": text})
                case CallArguments(index, text):
                    found.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
                case CallStart(index, id, name):
                    function = {"name": name, "arguments": ""}
                    call = {"index": index, "id": id, "type": "function", "function": function}
                    found.append({"tool_calls": [call]})
                case Reasoning(text) if self._fields:
                    found.append(dict.fromkeys(self._fields, text))
                case _:
                    pass  # thinking that nobody wants, or the end of a call
        return found

    def message(self, events: list[Event]) -> Json:
        """The fields of a whole message: content, thinking, and the calls that are complete."""
        message: Json = {"content": "".join(_texts(events, Text)) or None}
        thinking = "".join(_texts(events, Reasoning))
        if thinking:
            message |= dict.fromkeys(self._fields, thinking)
        calls = complete_calls(events)
        if calls:
            message["tool_calls"] = calls
        return message

    def renamed(self, fields: Json) -> Json | None:
        """The thinking that an upstream gave in a field of its own, or None to leave it there."""
        if self._keeps:
            return None
        given = {name: fields[name] for name in REASONING_FIELDS if fields.get(name)}
        if not given or tuple(given) == self._fields:
            return None
        return dict.fromkeys(self._fields, next(iter(given.values())))


def _texts(events: Iterable[Event], kind: type[Text] | type[Reasoning]) -> Iterable[str]:
    return (event.text for event in events if isinstance(event, kind))


def merged(events: Iterable[Event]) -> list[Event]:
    """Neighbours of a kind as one: a chunk that brings several tokens makes one delta."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, Text) and isinstance(last, Text):
            found[-1] = Text(last.text + event.text)
        elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
            found[-1] = Reasoning(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments):
            found[-1] = CallArguments(event.index, last.text + event.text)
        else:
            found.append(event)
    return found


def complete_calls(events: Iterable[Event]) -> list[Json]:
    """The calls that have an end, as a message has them."""
    calls: dict[int, Json] = {}
    arguments: dict[int, list[str]] = {}
    ended: list[Json] = []
    for event in events:
        match event:
            case CallStart(index, id, name):
                calls[index] = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                arguments[index] = []
            case CallArguments(index, text):
                arguments[index].append(text)
            case CallEnd(index):
                calls[index]["function"]["arguments"] = "".join(arguments[index])
                ended.append(calls[index])
            case _:
                pass
    return ended
