"""What the engine does for one request, read from marks in the last user message.

    [[hello]] [[empty]] [[utf8]] [[nasty]] [[count 200]]   which text
    [[think]]                                reasoning first, then an answer
    [[tool]] [[tool 2]]                      call the tools offered, in their order
    [[xml]] [[hermes]] [[qwen3_xml]]         write the call into the text, as raw models do
    [[wait 2s]] [[slow 50ms]]                before the first byte, before every chunk
    [[status 503]]                           answer with an error
    [[error 3]] [[cut 5]] [[stall 3]]        after that many chunks: say so, drop the connection, go silent

Marks combine. Without one that names a text, the engine says it is a demo and
repeats the message. Pure: a message in, a `Script` out, and always the same one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from proxy.adapters.events import CallArguments, CallStart, Reasoning, Text
from proxy.demo import texts
from proxy.demo.arguments import example

Step = Text | Reasoning | CallStart | CallArguments

# A mistyped number must not fill the memory of the machine it is tried on:
# 100,000 chunks are about 20 MB of stream, ten times a long agent turn.
MAX_PIECES = 100_000
MAX_CALLS = 64
# Longer than any client waits (OpenCode and openai-python give up between 5 and 10 minutes).
MAX_DELAY = 3600.0

_MARK = re.compile(r"\[\[([a-z0-9_]+)(?: +([^\[\]]*?))?\]\]")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_WORD = re.compile(r"\s*\S+|\s+$")

_DEFAULT_TOOL: dict[str, Any] = {
    "name": "read_file",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


@dataclass(frozen=True, slots=True)
class Script:
    """Steps of one answer, and how they are to go wrong. Delays are in seconds, counts in chunks."""

    steps: tuple[Step, ...] = ()
    finish: str = "stop"
    status: int = 200
    wait: float = 0.0
    pause: float = 0.0
    error_after: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None


@dataclass(slots=True)
class _Reading:
    """What the marks seen so far add up to."""

    tools: Sequence[Mapping[str, Any]]
    script: Script = field(default_factory=Script)
    chosen: bool = False

    def add(self, *steps: Step, finish: str = "stop") -> None:
        self.script = replace(self.script, steps=self.script.steps + steps, finish=finish)
        self.chosen = True


def script_for(
    message: str, tools: Sequence[Mapping[str, Any]] = (), *, must_call: bool = False, may_call: bool = True
) -> Script:
    """The script a message asks for; `tools` are OpenAI's function objects."""
    reading = _Reading(tools)
    for name, argument in _MARK.findall(message):
        _read(reading, name, argument, may_call=may_call)
    if must_call and tools and reading.script.finish != "tool_calls":
        reading.add(*_calls(tools, 1), finish="tool_calls")
    if not reading.chosen:
        reading.add(*_texts(_greeting(message)))
    return reading.script


def after_tool(result: str) -> Script:
    """The turn that ends a tool loop: say what came back."""
    return Script(_texts(_WORD.findall(f"The tool answered: {result}")[:MAX_PIECES]))


def truncated(script: Script, max_tokens: int | None) -> Script:
    """The script of a model that may produce only so many tokens (a step is a token)."""
    if max_tokens is None or max_tokens >= len(script.steps):
        return script
    return replace(script, steps=script.steps[:max_tokens], finish="length")


def count_tokens(text: str) -> int:
    """Words, the engine's unit on the prompt's side."""
    return len(_WORD.findall(text))


def _read(reading: _Reading, name: str, argument: str, *, may_call: bool) -> None:
    if name in texts.TEXTS:
        reading.add(*_texts(texts.TEXTS[name]))
    elif name == "count":
        reading.add(*_texts(texts.count(_number(argument, 1000, MAX_PIECES))))
    elif name == "think":
        reading.add(*(Reasoning(piece) for piece in texts.THOUGHT), *_texts(texts.ANSWER))
    elif name == "tool":
        if reading.tools and may_call:
            reading.add(*_calls(reading.tools, _number(argument, 1, MAX_CALLS)), finish="tool_calls")
    elif name in texts.WRITTEN_CALLS:
        reading.add(*_texts(_written_call(name, reading.tools)))
    else:
        reading.script = _with_fault(reading.script, name, argument)


def _with_fault(script: Script, name: str, argument: str) -> Script:
    match name:
        case "wait":
            return replace(script, wait=_seconds(argument, 1.0))
        case "slow":
            return replace(script, pause=_seconds(argument, 0.05))
        case "status":
            return replace(script, status=_status(argument))
        case "error":
            return replace(script, error_after=_number(argument, 0, MAX_PIECES))
        case "cut":
            return replace(script, cut_after=_number(argument, 0, MAX_PIECES))
        case "stall":
            return replace(script, stall_after=_number(argument, 0, MAX_PIECES))
    return script


def _texts(pieces: Sequence[str]) -> tuple[Text, ...]:
    return tuple(Text(piece) for piece in pieces)


def _calls(tools: Sequence[Mapping[str, Any]], number: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    for index in range(number):
        tool = tools[index % len(tools)]
        steps.append(CallStart(index, f"call_demo{index:020d}", str(tool.get("name", ""))))
        body = orjson.dumps(example(tool.get("parameters"))).decode()
        steps.extend(CallArguments(index, piece) for piece in texts.pieces_of(body))
    return tuple(steps)


def _written_call(name: str, tools: Sequence[Mapping[str, Any]]) -> texts.Pieces:
    tool = tools[0] if tools else _DEFAULT_TOOL
    text = texts.WRITTEN_CALLS[name](str(tool.get("name", "")), example(tool.get("parameters")))
    return texts.pieces_of(text)


def _greeting(message: str) -> list[str]:
    said = _MARK.sub("", message).strip()
    text = "This is LLMProxy's demo engine: no model, but a real stream."
    return _WORD.findall(f"{text} You said: {said}" if said else text)[:MAX_PIECES]


def _number(argument: str, default: int, most: int) -> int:
    return min(int(argument), most) if argument.isascii() and argument.isdecimal() else default


def _status(argument: str) -> int:
    status = _number(argument, 500, 599)
    return status if status >= 400 else 500


def _seconds(argument: str, default: float) -> float:
    matched = _DURATION.fullmatch(argument)
    if matched is None:
        return default
    return min(float(matched[1]) * _UNITS[matched[2]], MAX_DELAY)
