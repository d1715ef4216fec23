"""Translates a chat answer that comes as one body: all of the text fed, then finished."""

import logging

from proxy.adapters.base import Counts
from proxy.adapters.chat_choice import Choice, Scanners, place_of
from proxy.adapters.chat_deltas import REASONING_FIELDS, Emitter
from proxy.adapters.events import Event, Text
from proxy.wire.openai import Json, encoded, objects, parsed

log = logging.getLogger(__name__)

_FOUND = frozenset({"tool_calls", *REASONING_FIELDS})


class ChatAnswer:
    """One body in, one body out; the same bytes if nothing changes."""

    def __init__(
        self, scanners: Scanners, emitter: Emitter, *, named: bool = False, format: str = ""
    ) -> None:
        self._scanners = scanners
        self._emitter = emitter
        self._named = named
        self._format = format
        self._failures = 0

    @property
    def counts(self) -> Counts:
        counts = self._scanners.counts
        counts.failures += self._failures
        return counts

    def translate(self, body: bytes) -> bytes:
        answer = parsed(body)
        if answer is None or not isinstance(answer.get("choices"), list):
            return body
        choices = [self._guarded(given) for given in answer["choices"]]
        if all(new is old for new, old in zip(choices, answer["choices"], strict=True)):
            return body
        return encoded(answer | {"choices": choices})

    def _guarded(self, given: Json) -> Json:
        try:
            return self._choice(given)
        except Exception as error:
            # Whatever is wrong with an adapter, the answer goes on without it.
            self._failures += 1
            log.error("an adapter failed", extra={"format": self._format, "error": place_of(error)})
            return given

    def _choice(self, given: Json) -> Json:
        message = given.get("message") if isinstance(given, dict) else None
        if not isinstance(message, dict):
            return given
        choice = Choice(self._scanners, named=self._named)
        reason = given.get("finish_reason")
        changed = self._renamed(choice, message)
        if any(objects(message.get("tool_calls"))) or message.get("function_call"):
            choice.leave()
        elif isinstance(message.get("content"), str):
            changed = self._scanned(choice, changed, reason)
        ending = choice.ending(reason)
        if changed is message and ending == reason:
            return given
        made = given | {"message": changed, "finish_reason": ending}
        # Tokens no longer stand for the text.
        return made | {"logprobs": None} if made.get("logprobs") and not choice.native else made

    def _renamed(self, choice: Choice, message: Json) -> Json:
        """The message with the upstream's own reasoning fields as the client wants them."""
        if not (message.get("reasoning_content") or message.get("reasoning")):
            return message
        choice.reasons_natively()
        renamed = self._emitter.renamed(message)
        if renamed is None:
            return message
        return {key: value for key, value in message.items() if key not in REASONING_FIELDS} | renamed

    def _scanned(self, choice: Choice, message: Json, reason: str | None) -> Json:
        """The message with what was found in its content."""
        text = message["content"]
        found: list[Event] = [*(choice.feed(text) if text else ()), *choice.finish(reason or "stop")]
        events = self._emitter.kept(found)
        if events == ([Text(text)] if text else []):
            return message
        # An empty list or null stands there for what is found now.
        kept = {key: value for key, value in message.items() if value or key not in _FOUND}
        return kept | self._emitter.message(events)
