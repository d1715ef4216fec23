"""The JSON of answers: one shape for chat, one for plain completions.

A shape turns steps into the choices of stream chunks, or of one whole body; the
envelope around them (id, model, usage) is the same for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.adapters.events import CallArguments, CallStart, Reasoning, Text
from proxy.demo.script import Script, Step

Json = dict[str, Any]


class Shape(Protocol):
    """What differs between chat and plain completions."""

    prefix: str
    whole_object: str
    chunk_object: str

    def opening(self, index: int) -> Json | None: ...
    def delta(self, index: int, step: Step) -> Json: ...
    def ending(self, index: int, finish: str) -> Json: ...
    def choice(self, index: int, script: Script) -> Json: ...


class ChatShape:
    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        return _chat_choice(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, step: Step) -> Json:
        return _chat_choice(index, _delta(step))

    def ending(self, index: int, finish: str) -> Json:
        return _chat_choice(index, {}, finish)

    def choice(self, index: int, script: Script) -> Json:
        message: Json = {"role": "assistant", "content": _joined(script.steps, Text)}
        reasoning = _joined(script.steps, Reasoning)
        if reasoning:
            message["reasoning_content"] = reasoning
        calls = _calls(script.steps)
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": script.finish}


class TextShape:
    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> None:
        return None

    def delta(self, index: int, step: Step) -> Json:
        return _text_choice(index, step.text if isinstance(step, Text | Reasoning) else "")

    def ending(self, index: int, finish: str) -> Json:
        return _text_choice(index, "", finish)

    def choice(self, index: int, script: Script) -> Json:
        return _text_choice(index, _joined(script.steps, Reasoning | Text), script.finish)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every chunk, or the one body, of an answer carries around its choices."""

    shape: Shape
    id: str
    created: int
    model: str

    def chunk(self, *choices: Json) -> Json:
        return self._wrapped(self.shape.chunk_object, list(choices))

    def last_chunk(self, usage: Json) -> Json:
        return self.chunk() | {"usage": usage}

    def whole(self, choices: list[Json], usage: Json) -> Json:
        return self._wrapped(self.shape.whole_object, choices) | {"usage": usage}

    def _wrapped(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def usage_of(prompt_tokens: int, script: Script, choices: int) -> Json:
    completion = len(script.steps) * choices
    reasoning = sum(isinstance(step, Reasoning) for step in script.steps) * choices
    usage: Json = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def error(message: str, *, status: int, kind: str = "invalid_request_error") -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _chat_choice(index: int, delta: Json, finish: str | None = None) -> Json:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _text_choice(index: int, text: str, finish: str | None = None) -> Json:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _delta(step: Step) -> Json:
    match step:
        case Text(text):
            return {"content": text}
        case Reasoning(text):
            return {"reasoning_content": text}
        case CallStart(index, call_id, name):
            function = {"name": name, "arguments": ""}
            return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _joined(steps: Sequence[Step], kind: Any) -> str:
    return "".join(step.text for step in steps if isinstance(step, kind))


def _calls(steps: Sequence[Step]) -> list[Json]:
    starts = [step for step in steps if isinstance(step, CallStart)]
    return [
        {
            "id": start.id,
            "type": "function",
            "function": {"name": start.name, "arguments": _arguments(steps, start.index)},
        }
        for start in starts
    ]


def _arguments(steps: Sequence[Step], index: int) -> str:
    return "".join(step.text for step in steps if isinstance(step, CallArguments) and step.index == index)
