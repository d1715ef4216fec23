"""The thinking that clients send back with earlier answers.

OpenCode echoes it as `reasoning_content`, whatever field it came in. Engines that
take it know that spelling, newer ones beside their own; an upstream that does not
know thinking as a field may refuse the message.
"""

from typing import Any

from proxy.adapters.base import EchoedReasoning
from proxy.adapters.chat_deltas import REASONING_FIELDS
from proxy.adapters.reasoning_families import ReasoningFamily
from proxy.wire.openai import Json, text_of


class EchoedThinking:
    """A request step: renames it, drops it or puts it back into the text."""

    def __init__(self, becomes: EchoedReasoning, family: ReasoningFamily) -> None:
        self._becomes = becomes
        self._family = family

    def rewrite(self, body: Json) -> Json:
        messages = body["messages"]
        written = [self._message(message) for message in messages]
        same = all(new is old for new, old in zip(written, messages, strict=True))
        return body if same else body | {"messages": written}

    def _message(self, message: Any) -> Any:
        if not isinstance(message, dict) or message.get("role") != "assistant":
            return message
        given = [name for name in REASONING_FIELDS if name in message]
        if not given or given == [self._becomes]:
            return message
        said = next((message[name] for name in given if isinstance(message[name], str)), "")
        kept = {key: value for key, value in message.items() if key not in REASONING_FIELDS}
        return self._put(kept, said) if said else kept

    def _put(self, message: Json, said: str) -> Json:
        if self._becomes in REASONING_FIELDS:
            return message | {self._becomes: said}
        if self._becomes == "text":
            thinking = f"{self._family.open[0]}\n{said}\n{self._family.close[0]}\n"
            return message | {"content": thinking + text_of(message.get("content"))}
        return message
