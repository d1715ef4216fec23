"""Keeps the beginning of a session's prompts the same, and tells where it is not.

A prefix cache makes the second turn of an agent ten times cheaper, and one volatile
line at the top loses all of it: Claude Code writes a billing line that changes with
every request. Such lines are taken out of system prompts; what still differs from
turn to turn is reported.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from proxy.adapters.merge_system import is_system
from proxy.adapters.prefix_table import Comparison, Piece, PrefixTable
from proxy.wire.openai import Json, encoded, objects

TOOLS, SYSTEM, MESSAGES = "tools", "system", "messages"
"""The parts of a prompt, in the order in which they are compared."""


class PrefixGuard:
    """Of one model; the table may be that of several."""

    def __init__(self, name: str, strip_lines: Sequence[str], table: PrefixTable) -> None:
        self._name = name
        self._lines = tuple(line for line in strip_lines if line)
        self._table = table

    def rewrite(self, body: Json) -> Json:
        """The request without volatile lines in its system prompt; the same object if there are none."""
        system, messages = body.get("system"), body.get("messages")
        changes: Json = {}
        if (stripped := self._stripped(system)) is not system:
            changes["system"] = stripped
        if isinstance(messages, list):
            made = [self._message(each) if is_system(each) else each for each in messages]
            if any(new is not old for new, old in zip(made, messages, strict=True)):
                changes["messages"] = [each for each in made if each is not None]
        if not changes:
            return body
        rewritten = body | changes
        if changes.get("system", "…"):
            return rewritten
        # It held nothing else, and engines refuse empty texts.
        del rewritten["system"]
        return rewritten

    def key(self, session: bytes, body: Json) -> Hashable:
        """What a request is compared with: those of its session, and of its kind."""
        # Requests for titles and summaries have no tools, and nothing in common with the others.
        return self._name, session, bool(body.get("tools"))

    def compare(self, key: Hashable, body: Json) -> Comparison:
        """Compare a request with those before it."""
        return self._table.compare(key, prompt_of(body), lasting=MESSAGES)

    def used(self, key: Hashable, *, prompt_tokens: int, cached_tokens: int) -> None:
        """What the upstream counted for the last request."""
        self._table.used(key, prompt_tokens, cached_tokens)

    def _message(self, message: Json) -> Json | None:
        content = message.get("content")
        stripped = self._stripped(content)
        if stripped is content:
            return message
        return message | {"content": stripped} if stripped else None

    def _stripped(self, content: Any) -> Any:
        """A text, or a list of parts, without such lines; the same object if it has none."""
        if isinstance(content, str):
            return self._text(content)
        if not isinstance(content, list):
            return content
        made = [self._part(part) if isinstance(part, dict) else part for part in content]
        if all(new is old for new, old in zip(made, content, strict=True)):
            return content
        return [part for part in made if part is not None]

    def _part(self, part: Json) -> Json | None:
        text = part.get("text")
        stripped = self._text(text) if isinstance(text, str) else text
        if stripped is text:
            return part
        return part | {"text": stripped} if stripped else None

    def _text(self, text: str) -> str:
        if not any(line in text for line in self._lines):
            return text
        lines = text.split("\n")
        kept = [line for line in lines if not line.startswith(self._lines)]
        return "\n".join(kept) if len(kept) < len(lines) else text


def prompt_of(body: Json) -> Iterator[Piece]:
    """What of a request becomes the prompt, piece by piece, in an order of its own."""
    for tool in objects(body.get("tools")):
        yield TOOLS, encoded(_unmarked(tool))
    system = body.get("system")
    for part in system if isinstance(system, list) else [system] if isinstance(system, str) else []:
        yield SYSTEM, encoded({"system": _unmarked(part)})
    part_name = SYSTEM
    for message in objects(body.get("messages")):
        if not is_system(message):
            part_name = MESSAGES
        yield part_name, encoded(_without_marks(message))


def _without_marks(message: Json) -> Json:
    """A message without the marks that Anthropic's clients move from turn to turn; no model sees them."""
    content = message.get("content")
    if not isinstance(content, list) or not any("cache_control" in part for part in objects(content)):
        return message
    return message | {"content": [_unmarked(part) for part in content]}


def _unmarked(part: Any) -> Any:
    if not isinstance(part, dict) or "cache_control" not in part:
        return part
    return {key: value for key, value in part.items() if key != "cache_control"}
