"""Which session a request belongs to, from what agents send anyway.

First the headers that name it, then OpenAI's own fields, then the first thing
the user said: that is the same in every turn of a conversation and differs
between conversations, which the system prompt, shared by all users of an agent,
does not.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

from proxy.balancers.base import Hint

# OpenCode, Claude Code and Codex, in this order.
SESSION_HEADERS = (
    b"x-session-affinity",
    b"x-session-id",
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
)
PARENT_HEADERS = (b"x-parent-session-id",)
_PARENT = 1 << 16  # behind any name of a session

# What of a body's outermost members is of use here; `input` is the Responses API's `messages`.
BODY_KEYS = ("prompt_cache_key", "user", "metadata", "messages", "input")

# The beginning of what the user said is as good as all of it, and a pasted book costs nothing.
MAX_TEXT = 4096

# A body too large to be parsed is searched this far: past any system prompt and its tools.
MAX_SCANNED_BYTES = 512 * 1024

_USER = re.compile(rb'"role"\s*:\s*"user"')
_ASSISTANT = re.compile(rb'"role"\s*:\s*"assistant"')
_BEHIND = re.compile(
    rb'\s*,\s*"content"\s*:\s*(?:\[\s*\{\s*"type"\s*:\s*"(?:input_)?text"\s*,\s*"text"\s*:\s*)?'
    rb'"((?:[^"\\]|\\.){0,4096})',
    re.DOTALL,
)
_BEFORE = re.compile(rb'"content"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*\Z', re.DOTALL)


class Line(Protocol):
    """A header line."""

    @property
    def lower(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...


class SessionHeaders:
    """Finds the session that headers name, in one pass over them."""

    __slots__ = ("_ranks",)

    def __init__(self, names: Iterable[bytes] = SESSION_HEADERS) -> None:
        ranks = {name.lower(): rank for rank, name in enumerate(names)}
        self._ranks = dict.fromkeys(PARENT_HEADERS, _PARENT) | ranks

    def find(self, lines: Iterable[Line], model: str | None = None) -> Hint | None:
        """The session of the first name that is there with a value, and its parent."""
        session, parent = self.named(lines)
        if not session:
            return None
        return Hint(_key(session), _key(parent) if parent and parent != session else None, model)

    def named(self, lines: Iterable[Line]) -> tuple[bytes, bytes]:
        """What the client calls its session, and its session's parent; empty where it calls it nothing."""
        ranks = self._ranks
        best = _PARENT
        session = parent = b""
        for line in lines:
            rank = ranks.get(line.lower)
            if rank is None or not line.value:
                continue
            if rank == _PARENT:
                parent = parent or line.value
            elif rank < best:
                best, session = rank, line.value
        return session, parent


def session_in_body(values: Mapping[str, Any], body: bytes, model: str | None = None) -> Hint:
    """The session a body tells of; `values` are its `BODY_KEYS` where it could be parsed."""
    named = _named(values)
    if named is not None:
        return Hint(_key(named), None, model)
    found = values.get("messages") or values.get("input")
    # A body too large to be parsed leaves no list behind.
    said, is_new = _said(found) if isinstance(found, str | list) else _scanned(body)
    return Hint(_key(said), None, model, is_new) if said else Hint(None, None, model)


def _named(values: Mapping[str, Any]) -> bytes | None:
    """What the body calls its session, or at least its user."""
    metadata = values.get("metadata")
    names = (
        values.get("prompt_cache_key"),
        values.get("user"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,  # Anthropic's
    )
    for name in names:
        if isinstance(name, str) and name:
            return name.encode("utf-8", "surrogatepass")
    return None


def _said(found: str | list[Any]) -> tuple[bytes | None, bool]:
    """The beginning of the first thing the user said, and whether nobody has answered yet."""
    if isinstance(found, str):
        return _text(found), True
    said: bytes | None = None
    is_new = True
    for message in found:
        if not isinstance(message, dict):
            continue
        role = message.get("role")
        if role == "user" and said is None:
            said = _text(message.get("content")) or b""
        elif role == "assistant" or message.get("type") == "function_call":
            is_new = False
        if said is not None and not is_new:
            break
    return said, is_new


def _text(content: object) -> bytes | None:
    """A message's words: plain, or the first part that has any."""
    if isinstance(content, str):
        return content[:MAX_TEXT].encode("utf-8", "surrogatepass")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            return text[:MAX_TEXT].encode("utf-8", "surrogatepass")
    return None


def _scanned(body: bytes) -> tuple[bytes | None, bool]:
    """The same from a body that was not parsed, as it is written there."""
    user = _USER.search(body, 0, MAX_SCANNED_BYTES)
    if user is None:
        return None, True
    is_new = _ASSISTANT.search(body, 0, MAX_SCANNED_BYTES) is None
    if behind := _BEHIND.match(body, user.end()):
        return behind[1], is_new
    before = _BEFORE.search(body[max(user.start() - MAX_TEXT, 0) : user.start()])
    return before[1] if before else None, is_new


def _key(name: bytes) -> bytes:
    """Eight bytes in place of a name of any length, which might also be a secret."""
    return blake2b(name, digest_size=8).digest()
