"""The adapters of each model, from its configuration."""

from collections.abc import Iterable
from pathlib import Path
from secrets import token_bytes

from proxy.adapters import (
    AdapterMemory,
    ChatAdapters,
    ClampMaxTokens,
    ModelAdapters,
    PrefixGuard,
    ReasoningOptions,
    ToolCallOptions,
)
from proxy.adapters.tool_calls.formats import KINDS
from proxy.adapters.tool_calls.scanner import prepare
from proxy.config import schema_adapters as schema
from proxy.config.schema_pools import Model


def model_adapters(models: Iterable[Model], secret: bytes, memory: AdapterMemory) -> dict[str, ModelAdapters]:
    """By model id, those that have any. Reads prompt files; raises OSError."""
    return {model.id: _adapters(model, secret, memory) for model in models if model.adapters}


def vocabulary(model: Model) -> tuple[str, str]:
    """Names what decides how many tokens a prompt has."""
    return model.id, model.upstream_model


def _adapters(model: Model, secret: bytes, memory: AdapterMemory) -> ModelAdapters:
    clamp: ClampMaxTokens | None = None
    guard: PrefixGuard | None = None
    kinds = {type(adapter) for adapter in model.adapters}
    for adapter in model.adapters:
        match adapter:
            case schema.ClampMaxTokens() if model.context_length is not None:
                clamp = ClampMaxTokens(
                    context_length=model.context_length,
                    margin=adapter.margin,
                    rate=memory.rate(vocabulary(model)),
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
