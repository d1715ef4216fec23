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

# Anthropic's and chat's, and what the Responses API calls them.
_SYSTEM_MEMBERS = ("system", "instructions")
_MESSAGE_MEMBERS = ("messages", "input")
# Where the upstream keeps the conversation, a request does not hold its prompt.
_GOES_ON = ("previous_response_id", "conversation")


class PrefixGuard:
    """Of one model; the table may be that of several."""

    def __init__(self, name: str, strip_lines: Sequence[str], table: PrefixTable) -> None:
        self._name = name
        self._lines = tuple(line for line in strip_lines if line)
        self._table = table

    def rewrite(self, body: Json) -> Json:
        """The request without volatile lines in its system prompt; the same object if there are none."""
        changes: Json = {}
        for name in _SYSTEM_MEMBERS:
            if (stripped := self._stripped(body.get(name))) is not body.get(name):
                changes[name] = stripped
        for name in _MESSAGE_MEMBERS:
            if (kept := self._messages(body.get(name))) is not body.get(name):
                changes[name] = kept
        if not changes:
            return body
        # A system prompt that held nothing else goes, because engines refuse empty texts.
        gone = {name for name in _SYSTEM_MEMBERS if name in changes and not changes[name]}
        return {name: value for name, value in (body | changes).items() if name not in gone}

    def key(self, session: bytes, body: Json) -> Hashable | None:
        """What a request is compared with: those of its session, and of its kind; None: with nothing."""
        if any(body.get(name) for name in _GOES_ON):
            return None
        # Requests for titles and summaries have no tools, and nothing in common with the others.
        return self._name, session, bool(body.get("tools"))

    def compare(self, key: Hashable, body: Json) -> Comparison:
        """Compare a request with those before it."""
        return self._table.compare(key, prompt_of(body), lasting=MESSAGES)

    def used(self, key: Hashable, *, prompt_tokens: int, cached_tokens: int) -> None:
        """What the upstream counted for the last request."""
        self._table.used(key, prompt_tokens, cached_tokens)

    def _messages(self, messages: Any) -> Any:
        """The same object where no system message has such lines."""
        if not isinstance(messages, list):
            return messages
        made = [self._message(each) if is_system(each) else each for each in messages]
        if all(new is old for new, old in zip(made, messages, strict=True)):
            return messages
        return [each for each in made if each is not None]

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
    for name in _SYSTEM_MEMBERS:
        system = body.get(name)
        for part in system if isinstance(system, list) else [system] if isinstance(system, str) else []:
            yield SYSTEM, encoded({name: _unmarked(part)})
    part_name = SYSTEM
    for message in _said(body):
        if not is_system(message):
            part_name = MESSAGES
        yield part_name, encoded(_without_marks(message))


def _said(body: Json) -> Iterator[Json]:
    """Messages, and what the Responses API has in their place: a text counts as one message of the user."""
    for name in _MESSAGE_MEMBERS:
        said = body.get(name)
        yield from objects([{"role": "user", "content": said}] if isinstance(said, str) else said)


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
