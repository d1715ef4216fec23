"""What a request says about tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import BadRequest
from proxy.wire.openai import Json, name_of, objects


@dataclass(frozen=True, slots=True)
class Wanted:
    """The tools that may be called, and what must be."""

    tools: Sequence[Json] = ()
    named: str | None = None
    required: bool = False
    single: bool = False

    def __bool__(self) -> bool:
        return bool(self.tools)


def wanted(body: Json) -> Wanted:
    """What `tools`, `tool_choice` and `parallel_tool_calls` ask for; nothing where tools are off."""
    tools = list(objects(body.get("tools")))
    choice = body.get("tool_choice")
    if not tools or choice == "none":
        return Wanted()
    single = body.get("parallel_tool_calls") is False
    if choice is None or choice == "auto":
        return Wanted(tools, single=single)
    if choice in ("required", "any"):
        return Wanted(tools, required=True, single=single)
    if not isinstance(choice, dict):
        raise BadRequest(
            "tool_choice must be none, auto, required or an object that names a tool.", param="tool_choice"
        )
    if choice.get("type") == "allowed_tools":
        return _allowed(tools, choice, single=single)
    name = name_of(choice)
    chosen = [tool for tool in tools if name_of(tool) == name]
    if not name or not chosen:
        raise BadRequest("tool_choice names a tool that is not in tools.", param="tool_choice")
    return Wanted(chosen, named=name, required=True, single=single)


def _allowed(tools: list[Json], choice: Json, *, single: bool) -> Wanted:
    """OpenAI's newer form: some of the tools, so that the list itself can stay in the prompt cache."""
    inner: Any = choice.get("allowed_tools", choice)
    inner = inner if isinstance(inner, dict) else {}
    names = {name_of(tool) for tool in objects(inner.get("tools"))}
    chosen = [tool for tool in tools if name_of(tool) in names]
    if not chosen:
        raise BadRequest("tool_choice allows no tool that is in tools.", param="tool_choice")
    return Wanted(chosen, required=inner.get("mode") == "required", single=single)


def thinking_asked(body: Json) -> bool | None:
    """Whether the request switches the model's thinking on or off, in any of the spellings in use."""
    kwargs = body.get("chat_template_kwargs")
    for fields in (kwargs if isinstance(kwargs, dict) else {}, body):
        for name in ("enable_thinking", "thinking"):
            if isinstance(fields.get(name), bool):
                return bool(fields[name])
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    return {"enabled": True, "disabled": False}.get(kind) if isinstance(kind, str) else None
