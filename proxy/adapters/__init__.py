"""The one place where bodies are rewritten: adapters of a model, by the kind that configuration names."""

from collections.abc import Mapping
from types import MappingProxyType

from proxy.adapters.base import (
    Counts,
    ReasoningOptions,
    RequestStep,
    StreamTranslator,
    ToolCallOptions,
    Translation,
)
from proxy.adapters.chat import ChatAdapters
from proxy.adapters.clamp_max_tokens import ClampMaxTokens
from proxy.adapters.memory import AdapterMemory
from proxy.adapters.merge_system import MergeSystemMessages
from proxy.adapters.model import ModelAdapters
from proxy.adapters.normalize_errors import NormalizeErrors
from proxy.adapters.normalize_tool_calls import ToolCallRepair
from proxy.adapters.prefix_guard import PrefixGuard

KINDS: Mapping[str, type] = MappingProxyType(
    {
        "tool_calls": ToolCallOptions,
        "reasoning": ReasoningOptions,
        "merge_system_messages": MergeSystemMessages,
        "clamp_max_tokens": ClampMaxTokens,
        "normalize_errors": NormalizeErrors,
        "normalize_tool_calls": ToolCallRepair,
        "prefix_guard": PrefixGuard,
    }
)

__all__ = [
    "KINDS",
    "AdapterMemory",
    "ChatAdapters",
    "ClampMaxTokens",
    "Counts",
    "MergeSystemMessages",
    "ModelAdapters",
    "NormalizeErrors",
    "PrefixGuard",
    "ReasoningOptions",
    "RequestStep",
    "StreamTranslator",
    "ToolCallOptions",
    "ToolCallRepair",
    "Translation",
]
