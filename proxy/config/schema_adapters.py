"""Adapters of a model: the one place where bodies are rewritten."""

from typing import Annotated, Literal

from msgspec import Meta

from proxy.config.types import Section, choice, reads, says


class AdapterBase(Section, frozen=True, kw_only=True, tag_field="kind"):
    """What every adapter has."""


class ToolCalls(AdapterBase, frozen=True, kw_only=True, tag="tool_calls"):
    """Turns tool calls that the model writes as text into OpenAI tool_calls."""

    format: Annotated[str, choice("tool_format", "How the model writes calls; see docs/adapters.md.")] = (
        "auto"
    )
    mode: Annotated[
        Literal["template", "prompt"],
        says("template: the server's chat template shows the tools; prompt: the system message does."),
    ] = "template"
    trigger: Annotated[
        str | None,
        says("toolify_xml only: the line that announces calls; default one derived for each request."),
    ] = None
    prompt_file: Annotated[
        str | None,
        reads("prompt mode only: a file with the text to use, with {tools_list} and {trigger_signal} in it."),
    ] = None
    unknown_tools: Annotated[
        Literal["forward", "text"] | None,
        says(
            "A call to a tool that the request does not offer: pass it on as a call, or as plain text; "
            "default as fits the format."
        ),
    ] = None


class ReasoningAdapter(AdapterBase, frozen=True, kw_only=True, tag="reasoning"):
    """Takes the model's thinking out of the text."""

    format: Annotated[
        str | None, choice("reasoning_format", "The model's thinking tags; default those of its tool format.")
    ] = None
    emit: Annotated[
        Literal["reasoning_content", "reasoning", "both", "strip", "keep"],
        says("The field that gets the thinking; strip drops it, keep leaves it in the text."),
    ] = "reasoning_content"
    start_in_reasoning: Annotated[
        bool | None, says("The answer begins inside the thinking; default as the format does.")
    ] = None


class MergeSystemMessages(AdapterBase, frozen=True, kw_only=True, tag="merge_system_messages"):
    """Joins system messages into one at the beginning, for strict chat templates."""


class ClampMaxTokens(AdapterBase, frozen=True, kw_only=True, tag="clamp_max_tokens"):
    """Lowers max_tokens to what the context length leaves; needs the model's context_length."""

    margin: Annotated[
        Annotated[int, Meta(ge=0)], says("Tokens kept free because the prompt's size is an estimate.")
    ] = 256


class NormalizeErrors(AdapterBase, frozen=True, kw_only=True, tag="normalize_errors"):
    """Turns upstream errors of any shape into OpenAI's error object."""


class NormalizeToolCalls(AdapterBase, frozen=True, kw_only=True, tag="normalize_tool_calls"):
    """Repairs native tool-call deltas: index, id once, valid JSON at the end."""


class PrefixGuard(AdapterBase, frozen=True, kw_only=True, tag="prefix_guard"):
    """Keeps the prompt's beginning the same from turn to turn, for the upstream's prefix cache."""

    strip_lines: Annotated[
        tuple[str, ...], says("System-message lines that begin with one of these are removed.")
    ] = ("x-anthropic-billing-header:",)


Adapter = (
    ToolCalls
    | ReasoningAdapter
    | MergeSystemMessages
    | ClampMaxTokens
    | NormalizeErrors
    | NormalizeToolCalls
    | PrefixGuard
)
