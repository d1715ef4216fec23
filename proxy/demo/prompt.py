"""A request to the engine, read from its JSON body; what cannot be read raises `BadPrompt`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.demo.script import Script, after_tool, count_tokens, script_for, truncated

# Every choice is a whole answer; OpenAI's own bound.
MAX_CHOICES = 128


class BadPrompt(Exception):
    """The body is not a request of this kind; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine needs to know to answer."""

    model: str
    script: Script
    prompt_tokens: int
    stream: bool
    include_usage: bool
    choices: int


def chat(body: bytes) -> Prompt:
    """Read a body of /v1/chat/completions."""
    fields = parse(body)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadPrompt("messages must be a list with at least one message")
    if not all(isinstance(message, dict) for message in messages):
        raise BadPrompt("every message must be an object")
    tokens = sum(count_tokens(_text(message.get("content"))) for message in messages)
    return _prompt(fields, _chat_script(fields, messages), tokens)


def text(body: bytes) -> Prompt:
    """Read a body of /v1/completions."""
    fields = parse(body)
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadPrompt("prompt must be a text")
    return _prompt(fields, script_for(prompt), count_tokens(prompt))


def inputs(fields: Mapping[str, Any]) -> list[str]:
    """The texts of an /v1/embeddings request."""
    given = fields.get("input")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and all(isinstance(item, str) for item in given):
        return given
    raise BadPrompt("input must be a text or a list of texts")


def parse(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadPrompt("the body is not JSON") from None
    if not isinstance(fields, dict):
        raise BadPrompt("the body is not a JSON object")
    return fields


def _chat_script(fields: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Script:
    if messages[-1].get("role") == "tool":
        return after_tool(_text(messages[-1].get("content")))
    asked = [message for message in messages if message.get("role") == "user"]
    choice = fields.get("tool_choice", "auto")
    return script_for(
        _text(asked[-1].get("content")) if asked else "",
        _offered(fields.get("tools"), choice),
        must_call=choice == "required" or isinstance(choice, dict),
        may_call=choice != "none",
    )


def _offered(tools: object, choice: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(tools, list):
        return []
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    offered = [function for function in functions if isinstance(function, dict)]
    if not isinstance(choice, dict):
        return offered
    named = choice.get("function", {}).get("name")
    return [function for function in offered if function.get("name") == named]


def _prompt(fields: Mapping[str, Any], script: Script, tokens: int) -> Prompt:
    options = fields.get("stream_options")
    limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    choices = fields.get("n", 1)
    if not isinstance(choices, int) or not 1 <= choices <= MAX_CHOICES:
        raise BadPrompt("n must be a small positive number")
    return Prompt(
        model=str(fields.get("model", "demo")),
        script=truncated(script, limit if isinstance(limit, int) and limit > 0 else None),
        prompt_tokens=tokens,
        stream=fields.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        choices=choices,
    )


def _text(content: object) -> str:
    """A message's text: content is a string, a list of parts, or null beside tool calls."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))
