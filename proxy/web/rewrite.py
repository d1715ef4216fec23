"""What is done to one answer's body on its way down: usage hidden, chat translated, silence broken."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import orjson

from proxy.adapters.base import StreamTranslator, Translation
from proxy.adapters.chat_choice import place_of
from proxy.adapters.edited_stream import EditedStream
from proxy.adapters.normalize_errors import NormalizeErrors, normalized
from proxy.usage.ask import UsageHider
from proxy.wire.http1 import AnswerHead, read_line
from proxy.wire.openai import encoded, parsed

if TYPE_CHECKING:
    from proxy.adapters.normalize_tool_calls import ToolCallRepair

log = logging.getLogger(__name__)

# A translated stream may be silent while the upstream talks (a long argument that is no string). A
# comment after so long keeps everybody waiting: half of what the strictest known client allows (Bun,
# 10 s to the first byte), far below OpenCode's 300 s.
SILENT_SECONDS = 5.0

# A whole answer is kept until it can be translated: far above any model's longest output.
MAX_WHOLE_BYTES = 64 * 1024 * 1024

# An error is kept until it can be read. Those of engines have some kilobytes; a larger one passes as it is.
MAX_ERROR_BYTES = 1024 * 1024

COMMENT = b": keep-alive\n\n"
# Behind an `id:` field openai-python would take a blank line for an event.
SHORT_COMMENT = b": keep-alive\n"

_JSON = read_line(b"Content-Type: application/json")

BROKEN_OFF = b"data: %b\n\n" % orjson.dumps(
    {
        "error": {
            "message": "The upstream server broke off its answer.",
            "type": "server_error",
            "param": None,
            "code": "upstream_error",
        }
    }
)


@dataclass(slots=True)
class AnswerRewrite:
    """What one exchange's answer needs; `stream_for` and `whole_limit` choose by the answer's head."""

    keep_alive: float | None = None
    may_begin_early: bool = (
        False  # the client wants a stream, and comments in it before an upstream has spoken
    )
    is_anthropic: bool = False  # whose errors have a form of their own
    translation: Translation | None = None
    hider: UsageHider | None = None
    calls: "ToolCallRepair | None" = None
    errors: NormalizeErrors | None = None
    edited: EditedStream | None = None
    failed_wholes: int = 0

    @property
    def has_work(self) -> bool:
        parts = (self.translation, self.hider, self.keep_alive, self.calls, self.errors)
        return any(part is not None for part in parts)

    def stream_for(self, head: AnswerHead) -> "StreamRewrite | None":
        """The rewriting of this answer, if it is a stream that can be read."""
        if head.status != 200 or not _is(head, b"text/event-stream"):
            return None
        stages: list[Stage] = []
        edits = [part.edit for part in (self.errors, self.calls) if part is not None]
        if edits:
            self.edited = EditedStream(edits)
            stages.append(self.edited)
        if self.translation is None:
            return StreamRewrite(self.hider, stages, self.keep_alive)
        translator = self.translation.answer_stream()
        return StreamRewrite(self.hider, [*stages, translator], self.keep_alive, translator)

    def early_stream(self) -> "StreamRewrite":
        """A stream that begins before the upstream's."""
        return StreamRewrite(None, (), self.keep_alive)

    def error_event(self, status: int, body: bytes) -> bytes:
        """An upstream's error, for a stream that has begun."""
        document = parsed(normalized(status, body, anthropic=self.is_anthropic)) or {}
        return (b"event: error\n" if self.is_anthropic else b"") + b"data: " + encoded(document) + b"\n\n"

    def whole_limit(self, head: AnswerHead) -> int | None:
        """How much of this answer is kept to be rewritten whole; None if it goes on as it comes."""
        if head.status >= 400:
            return MAX_ERROR_BYTES if self.errors is not None and _is_readable(head) else None
        if head.status != 200 or (self.translation is None and self.calls is None):
            return None
        return MAX_WHOLE_BYTES if _is(head, b"application/json") else None

    def whole(self, head: AnswerHead, body: bytes) -> tuple[AnswerHead, bytes]:
        """The answer to send for one that was kept."""
        if head.status >= 400:
            return self._error(head, body)
        if self.calls is not None:
            body = self._guarded(self.calls.answer_json, body)
        return head, self.translation.answer_json(body) if self.translation is not None else body

    def _error(self, head: AnswerHead, body: bytes) -> tuple[AnswerHead, bytes]:
        assert self.errors is not None
        made = self._guarded(partial(self.errors.answer, head.status), body)
        if made is body and _is(head, b"application/json"):
            return head, body
        lines = [line for line in head.lines if line.lower != b"content-type"]
        return replace(head, lines=[*lines, _JSON]), made

    @property
    def failures(self) -> int:
        """Adapters that failed and were left out, those of the translation aside."""
        return self.failed_wholes + (self.edited.failures if self.edited is not None else 0)

    def _guarded(self, rewrite: Callable[[bytes], bytes], body: bytes) -> bytes:
        try:
            return rewrite(body)
        except Exception as error:
            # Whatever is wrong with an adapter, the answer goes on without it.
            self.failed_wholes += 1
            log.error("an adapter failed", extra={"error": place_of(error)})
            return body


class Stage(Protocol):
    """Bytes of a stream in, bytes out."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self, cut: bool = False) -> bytes: ...


class StreamRewrite:
    """A stream's rewriting, and its comments in silence."""

    def __init__(
        self,
        hider: UsageHider | None,
        stages: Sequence[Stage],
        keep_alive: float | None,
        translator: StreamTranslator | None = None,
    ) -> None:
        """`translator` is the last of the stages, where the answer is translated."""
        self._hider = hider
        self._stages = stages
        self._translator = translator
        self._keep_alive = keep_alive
        self._tail = b"\n\n"  # a stream begins at an event's edge
        self._has_ids = False

    def feed(self, payload: bytes) -> bytes:
        if self._hider is not None:
            payload = self._hider.feed(payload)
        for stage in self._stages:
            payload = stage.feed(payload) if payload else b""
        if payload:
            self._tail = (self._tail + payload[-4:])[-4:]
            self._has_ids = self._has_ids or payload.startswith(b"id:") or b"\nid:" in payload
        return payload

    def finish(self, *, cut: bool = False) -> bytes:
        """What was held back; a translated stream that was cut says so."""
        rest = self._hider.finish() if self._hider is not None else b""
        for stage in self._stages:
            rest = (stage.feed(rest) if rest else b"") + stage.finish(cut)
        return rest + BROKEN_OFF if cut and self._translator is not None else rest

    def comment_after(self, silence: float) -> bytes:
        """A comment, if the stream has been silent for too long and stands between two events."""
        limit = self._keep_alive
        if self._translator is not None and self._translator.silent:
            limit = SILENT_SECONDS if limit is None else min(limit, SILENT_SECONDS)
        if limit is None or silence < limit or not self._tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
            return b""
        return SHORT_COMMENT if self._has_ids else COMMENT


def _is_readable(head: AnswerHead) -> bool:
    return (head.get(b"content-encoding") or b"identity").lower() == b"identity"


def _is(head: AnswerHead, media_type: bytes) -> bool:
    return _is_readable(head) and (head.get(b"content-type") or b"").lower().startswith(media_type)
