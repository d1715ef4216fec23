"""Joins system messages into one at the beginning.

Chat templates of Qwen3.5 and later answer 400 to any system message that is not
the first, and OpenCode sends two. What other clients write further down is moved
up: it was said with the authority of a system message and keeps it.
"""

from typing import Any

from proxy.wire.openai import Json

SYSTEM_ROLES = ("system", "developer")


class MergeSystemMessages:
    """A request step."""

    def rewrite(self, body: Json) -> Json:
        messages = body.get("messages")
        if not isinstance(messages, list):
            return body
        places = [index for index, message in enumerate(messages) if is_system(message)]
        if not places or (places == [0] and messages[0]["role"] == "system"):
            return body
        content: Any = messages[places[0]].get("content")
        for place in places[1:]:
            content = joined(content, messages[place].get("content"))
        first = messages[places[0]] | {"role": "system", "content": content}
        return body | {"messages": [first, *(message for message in messages if not is_system(message))]}


def is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in SYSTEM_ROLES


def joined(content: object, more: object) -> object:
    """Two contents as one, a blank line between; parts stay parts."""
    if not content or not more:
        return content or more
    if isinstance(content, str) and isinstance(more, str):
        return f"{content}\n\n{more}"
    return [*_parts(content), *_parts(more)]


def _parts(content: object) -> list[object]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]
