"""Repairs the tool calls that an upstream has parsed itself, streaming or not.

A chunk in which nothing is wrong keeps its bytes; without calls none is even parsed.
Where calls were made, the answer ends with `tool_calls`, unless the request named the
tool: then OpenAI says `stop`, and so it stays.
"""

from typing import Any

import orjson

from proxy.adapters.base import Chance
from proxy.adapters.chat_stream import MAX_CHOICES
from proxy.adapters.history_native import letters
from proxy.adapters.native_arguments import NativeArguments, text_of_arguments
from proxy.adapters.native_calls import NativeCalls
from proxy.wire.openai import DONE, STOPPED, TRUNCATED, Json, encoded, name_of, objects, parsed
from proxy.wire.sse import SseEvent, encode

_CALLS = b'"tool_calls"'


class ToolCallRepair:
    """Of one answer; made for each request that offers tools."""

    def __init__(self, body: Json, chance: Chance) -> None:
        choice = body.get("tool_choice")
        self._is_named = isinstance(choice, dict) and bool(name_of(choice))
        self._names = frozenset(filter(None, map(name_of, objects(body.get("tools")))))
        self._chance = chance
        self._ids: set[str] = set()
        self._choices: dict[int, _Choice] = {}
        self.malformed = 0  # calls in which something had to be mended
        self.invalid = 0  # calls whose arguments are no JSON object all the same

    def edit(self, event: SseEvent) -> bytes | None:
        """What to write in place of this event of a stream, or None."""
        data = event.data
        if data is None or data == DONE or (not self._choices and _CALLS not in data):
            return None
        chunk = parsed(data)
        if chunk is None or not isinstance(chunk.get("choices"), list):
            return None
        given = chunk["choices"]
        made = [self._delta(each) if isinstance(each, dict) else each for each in given]
        if all(new is old for new, old in zip(made, given, strict=True)):
            return None
        if all(map(_is_empty, made)) and not chunk.get("usage"):
            return b""
        return encode(event._replace(data=encoded(chunk | {"choices": made}), comment=None))

    def answer_json(self, body: bytes) -> bytes:
        """The same for an answer that comes as one body; the same bytes if nothing changes."""
        if _CALLS not in body:
            return body
        answer = parsed(body)
        if answer is None or not isinstance(answer.get("choices"), list):
            return body
        given = answer["choices"]
        made = [self._message(each) if isinstance(each, dict) else each for each in given]
        if all(new is old for new, old in zip(made, given, strict=True)):
            return body
        return encoded(answer | {"choices": made})

    # streaming

    def _delta(self, given: Json) -> Json:
        delta, reason = given.get("delta"), given.get("finish_reason")
        items = delta.get("tool_calls") if isinstance(delta, dict) else None
        choice = self._choice_at(given.get("index"), begins=bool(items))
        if choice is None or not isinstance(delta, dict):
            return given
        old = items if isinstance(items, list) else []
        new = choice.calls.take(old)
        if isinstance(reason, str) and not choice.is_ended:
            choice.is_ended = True
            new += choice.calls.end(truncated=reason in TRUNCATED)
            self._count(choice.calls, truncated=reason in TRUNCATED)
        ending = self._ending(reason) if choice.calls.any_announced else reason
        is_same = len(new) == len(old) and all(one is other for one, other in zip(new, old, strict=True))
        if is_same and ending == reason:
            return given
        rest = {key: value for key, value in delta.items() if key != "tool_calls"}
        return given | {"delta": rest | {"tool_calls": new} if new else rest, "finish_reason": ending}

    def _choice_at(self, index: object, *, begins: bool) -> "_Choice | None":
        number = index if isinstance(index, int) else 0
        choice = self._choices.get(number)
        if choice is None and begins and len(self._choices) < MAX_CHOICES:
            choice = self._choices[number] = _Choice(NativeCalls(self._names, self._ids, self._new_id))
        return choice

    def _count(self, calls: NativeCalls, *, truncated: bool) -> None:
        self.malformed += sum(call.is_malformed or call.arguments.mended for call in calls.calls)
        if not truncated:
            self.invalid += sum(not call.arguments.is_object for call in calls.calls)

    # whole

    def _message(self, given: Json) -> Json:
        message, reason = given.get("message"), given.get("finish_reason")
        old = message.get("tool_calls") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(old, list) or not any(objects(old)):
            return given
        is_cut = reason in TRUNCATED
        new = [self._call(each, is_cut=is_cut) if isinstance(each, dict) else each for each in old]
        ending = self._ending(reason)
        if all(one is other for one, other in zip(new, old, strict=True)):
            return given if ending == reason else given | {"finish_reason": ending}
        return given | {"message": message | {"tool_calls": new}, "finish_reason": ending}

    def _call(self, given: Json, *, is_cut: bool) -> Json:
        """One call of a message; what is not a function's stays as it is."""
        function = given.get("function")
        if not isinstance(function, dict):
            return given
        id, text = given.get("id"), function.get("arguments")
        if not isinstance(id, str) or not id or id in self._ids:
            id = self._new_id()
        self._ids.add(id)
        arguments = self._arguments(text, is_cut=is_cut)
        if id == given.get("id") and arguments == text and given.get("type") == "function":
            return given
        self.malformed += 1
        return given | {"id": id, "type": "function", "function": function | {"arguments": arguments}}

    def _arguments(self, given: Any, *, is_cut: bool) -> str:
        text = _unwrapped(text_of_arguments(given))
        arguments = NativeArguments()
        made = arguments.take(text) + arguments.end(truncated=is_cut)
        self.invalid += not is_cut and not arguments.is_object
        return made

    def _ending(self, reason: Any) -> Any:
        return "tool_calls" if reason in STOPPED and not self._is_named else reason

    def _new_id(self) -> str:
        return "call_" + letters(self._chance(24), 24)


class _Choice:
    """One choice of a stream."""

    __slots__ = ("calls", "is_ended")

    def __init__(self, calls: NativeCalls) -> None:
        self.calls = calls
        self.is_ended = False


def _is_empty(choice: Any) -> bool:
    """Whether a choice of a chunk says nothing (any more)."""
    return isinstance(choice, dict) and not choice.get("delta") and choice.get("finish_reason") is None


def _unwrapped(text: str) -> str:
    """Arguments that were made text twice, as they were."""
    if text.lstrip()[:1] != '"':
        return text
    try:
        inner = orjson.loads(text)
        return inner if isinstance(inner, str) and isinstance(orjson.loads(inner), dict) else text
    except orjson.JSONDecodeError:
        return text
