"""All adapters of one model, each where it has one."""

from dataclasses import dataclass

from proxy.adapters.base import Chance
from proxy.adapters.chat import ChatAdapters
from proxy.adapters.clamp_max_tokens import ClampMaxTokens
from proxy.adapters.normalize_tool_calls import ToolCallRepair
from proxy.adapters.prefix_guard import PrefixGuard
from proxy.wire.openai import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAdapters:
    """Built once for a model; `chat` is for what the model writes as text."""

    chance: Chance
    chat: ChatAdapters | None = None
    clamp: ClampMaxTokens | None = None
    guard: PrefixGuard | None = None
    normalizes_errors: bool = False
    normalizes_tool_calls: bool = False

    def repair(self, body: Json) -> ToolCallRepair | None:
        """What repairs the calls in the answer to this request, if it can have any."""
        return ToolCallRepair(body, self.chance) if self.normalizes_tool_calls and body.get("tools") else None
