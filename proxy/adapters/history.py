"""Earlier calls and results of tools, written as text for an upstream that knows no tools.

Calls are written in the grammar that the model is asked for, results in the tags
of its family. Nothing in a history is worth an error: a call whose arguments were
cut off comes back to us in every later request, and refusing it would end the
session for good.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.adapters.prompt_styles import Result, Style
from proxy.adapters.tool_calls.format import Format
from proxy.adapters.tool_calls.render import Call, render_calls
from proxy.wire.openai import Json, function_of, objects, text_of

_RESULT_ROLES = ("tool", "function")
_GONE = frozenset({"tool_calls", "function_call", "refusal", "audio"})


@dataclass(frozen=True, slots=True)
class TextHistory:
    """Writes one request's messages."""

    format: Format
    style: Style
    trigger: str | None = None

    def rewritten(self, messages: Sequence[Any]) -> list[Any]:
        """The messages without calls and results; those that have none stay as they are."""
        calls = {call.id: call for message in messages for call in calls_of(message)}
        written: list[Any] = []
        results: list[Json] = []
        for message in messages:
            if is_result(message):
                results.append(message)
                continue
            if results:
                written.append(self._results(results, calls))
                results = []
            written.append(self._message(message))
        if results:
            written.append(self._results(results, calls))
        return written

    def _message(self, message: Any) -> Any:
        if not isinstance(message, dict) or message.get("role") != "assistant":
            return message
        if not _GONE & message.keys():
            return message
        parts = text_of(message.get("content")), self._calls(message)
        kept = {key: value for key, value in message.items() if key not in _GONE}
        return kept | {"content": "\n".join(part for part in parts if part)}

    def _calls(self, message: Json) -> str:
        markup = render_calls(self.format, list(calls_of(message)))
        return f"{self.trigger}\n{markup}" if markup and self.trigger else markup

    def _results(self, messages: list[Json], calls: dict[str, Call]) -> Json:
        """Neighbouring results as one user message, since many templates want turns to alternate."""
        text = self.style.results([_result(message, calls) for message in messages])
        parts = [part for message in messages for part in _pictures(message.get("content"))]
        return {"role": "user", "content": [{"type": "text", "text": text}, *parts] if parts else text}


def has_tools(messages: Sequence[Any]) -> bool:
    """Do earlier messages hold calls or results?"""
    return any(is_result(message) or any(calls_of(message)) for message in messages)


def is_result(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in _RESULT_ROLES


def calls_of(message: object) -> Iterator[Call]:
    """The calls of an assistant message; arguments stay the text they are."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return
    for call in objects(message.get("tool_calls")):
        yield _call(call, call.get("id"))
    if isinstance(message.get("function_call"), dict):
        yield _call(message["function_call"], message["function_call"].get("name"))


def _call(call: Json, id: object) -> Call:
    function = function_of(call)
    arguments = function.get("arguments")
    return Call(
        id=id if isinstance(id, str) else "",
        name=str(function.get("name") or ""),
        arguments=arguments if isinstance(arguments, str | dict) else "",
    )


def _result(message: Json, calls: dict[str, Call]) -> Result:
    """A result with its call; where no call has that id, the id has to do for a name."""
    id = str(message.get("tool_call_id") or message.get("name") or "")
    call = calls.get(id)
    name = message.get("name") or (call.name if call is not None else id)
    return Result(str(name), call.arguments if call is not None else "", text_of(message.get("content")))


def _pictures(content: object) -> list[Json]:
    return [part for part in objects(content) if part.get("type") != "text"]
