"""The adapters of one model, from its configuration."""

from collections.abc import Hashable
from pathlib import Path
from secrets import token_bytes

from proxy.adapters.base import ReasoningOptions, ToolCallOptions
from proxy.adapters.chat import ChatAdapters
from proxy.adapters.clamp_max_tokens import ClampMaxTokens
from proxy.adapters.memory import AdapterMemory
from proxy.adapters.model import ModelAdapters
from proxy.adapters.prefix_guard import PrefixGuard
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.scanner import prepare
from proxy.config import schema_adapters as schema
from proxy.config.schema_pools import Model


def adapters_of(model: Model, secret: bytes, memory: AdapterMemory, vocabulary: Hashable) -> ModelAdapters:
    """`vocabulary` names what decides how many tokens a prompt has. Reads a prompt file; raises OSError."""
    clamp: ClampMaxTokens | None = None
    guard: PrefixGuard | None = None
    kinds = {type(adapter) for adapter in model.adapters}
    for adapter in model.adapters:
        match adapter:
            case schema.ClampMaxTokens() if model.context_length is not None:
                clamp = ClampMaxTokens(
                    context_length=model.context_length,
                    margin=adapter.margin,
                    rate=memory.rate(vocabulary),
                )
            case schema.PrefixGuard():
                guard = PrefixGuard(model.id, adapter.strip_lines, memory.prefixes)
    return ModelAdapters(
        chance=token_bytes,
        chat=_chat(model, secret),
        clamp=clamp,
        guard=guard,
        normalizes_errors=schema.NormalizeErrors in kinds,
        normalizes_tool_calls=schema.NormalizeToolCalls in kinds,
    )


def _chat(model: Model, secret: bytes) -> ChatAdapters | None:
    """What reads a model's text, where anything does."""
    tools: ToolCallOptions | None = None
    reasoning: ReasoningOptions | None = None
    merges = False
    for adapter in model.adapters:
        match adapter:
            case schema.ToolCalls():
                tools = _tools(adapter)
            case schema.ReasoningAdapter():
                reasoning = ReasoningOptions(
                    format=adapter.format,
                    emit=adapter.emit,
                    start_in_reasoning=adapter.start_in_reasoning,
                )
            case schema.MergeSystemMessages():
                merges = True
    if tools is None and reasoning is None and not merges:
        return None
    return ChatAdapters(
        tools=tools, reasoning=reasoning, merge_system=merges, secret=secret, chance=token_bytes
    )


def _tools(adapter: schema.ToolCalls) -> ToolCallOptions:
    prompt = Path(adapter.prompt_file).read_text("utf-8") if adapter.prompt_file else None
    prepare(KINDS[adapter.format])  # up to a tenth of a second, which the first request need not wait for
    return ToolCallOptions(
        format=adapter.format,
        mode=adapter.mode,
        trigger=adapter.trigger,
        prompt=prompt,
        unknown_tools=adapter.unknown_tools,
    )
