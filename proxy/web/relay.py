"""One upstream answer on its way to the client, piece by piece, unchanged.

The pieces are written as they come, in the framing they came in; only where the
client could not understand that framing (HTTP/1.0), or could not tell its end
(an answer that ends with the connection), is it re-framed. Whoever wants to
learn from the bytes sees them after they were written.
"""

import asyncio
import logging
from dataclasses import replace
from enum import Enum
from typing import Final, Protocol

from proxy.health.blame import BLAME_BYTES, blames
from proxy.upstream.connection import Failure, Timeouts, UpstreamConnection
from proxy.web.exchange import Exchange
from proxy.web.rewrite import BROKEN_OFF, COMMENT, StreamRewrite
from proxy.web.run import Pause
from proxy.wire.headers import answer_head, interim_head
from proxy.wire.http1 import AnswerHead, Framing

log = logging.getLogger(__name__)


# The head of a stream that we begin; the request id and the like come behind it.
EARLY_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n"
)

# No error object is longer; of what is, the beginning says enough.
MAX_EARLY_ERROR_BYTES = 64 * 1024


class Mode(Enum):
    PASS = "pass"  # raw bytes, framing and all
    UNCHUNK = "unchunk"  # the payload alone; the connection's end is the answer's end
    CHUNK = "chunk"  # the payload in chunks of ours


_PASS: Final = Mode.PASS  # asked for each piece, and a look into a class is dear where this is compiled


class Judge(Protocol):
    """Whoever decides about an answer."""

    def declines(self, head: AnswerHead, reason: bytes) -> bool:
        """Whether this answer is left to another attempt; `reason` is how a server's error begins."""

    @property
    def is_alone(self) -> bool:
        """Whether no other attempt may write this answer."""

    @property
    def awaits_body(self) -> bool:
        """Whether a head alone is no answer yet, because another attempt may follow its silence."""

    def may_begin(self) -> bool:
        """Whether this answer may be written, asked once; if not, another one already is."""

    def answered(self, head: AnswerHead) -> None:
        """The first bytes of the body have come."""

    def leaves(self) -> bool:
        """Asked during a silence: whether the request is taken away from its server."""


class Relay:
    """Receives one attempt's answer (see upstream.connection.Receiver) and writes it downstream."""

    def __init__(self, exchange: Exchange, judge: Judge) -> None:
        self._exchange = exchange
        self._downstream = exchange.connection
        self._loop = exchange.connection.loop
        self._judge = judge
        self._pending = b""
        self._mode = Mode.PASS
        self._upstream: UpstreamConnection | None = None
        self._end = Pause(exchange.connection.run)
        self._failure: Failure | None = None
        self._has_finished = False
        self.answer: AnswerHead | None = None
        self.declined = False  # the answer is left to another attempt; nothing of it was written
        self.is_late = False  # another attempt has begun its answer
        self.began = False  # something of the answer is on its way to the client
        self.keeps_alive = False
        self._stream: StreamRewrite | None = None
        self._whole: list[tuple[bytes, bytes]] | None = None  # rewritten when it is complete
        self._whole_bytes = 0
        self._whole_limit = 0
        self._last_write = 0.0  # where comments may be due
        self._is_silent = True
        # An error until it has said its reason, or a head until there is a body behind it.
        self._held: list[tuple[bytes, bytes]] | None = None
        self._held_for = 0  # bytes of body
        self._is_early = (
            False  # the stream was begun by us, with comments; what the upstream says goes into it
        )
        self.reason = b""

    async def run(
        self, upstream: UpstreamConnection, head: bytes, body: bytes, *, method: bytes, timeouts: Timeouts
    ) -> Failure | None:
        """Send the request and wait for the answer's end."""
        self._upstream = upstream
        self._downstream.forwarding(self)
        rewrite = self._exchange.rewrite
        if rewrite is not None and rewrite.may_begin_early and self._judge.is_alone:
            self._last_write = self._loop.time()
            self._downstream.host.watch.add(self)
        try:
            upstream.begin(head, body, self, method=method, timeouts=timeouts)
            await self._end
            return self._failure
        except asyncio.CancelledError:
            upstream.abandon(self)
            raise
        finally:
            self._upstream = None
            if self._judge.is_alone:
                self._downstream.forwarding(None)
            self._downstream.host.watch.discard(self)
            # It holds us: without the circle, all of a request's objects go at its end.
            self._judge = None  # type: ignore[assignment]  # nobody asks it any more

    # -- flow control, from downstream -------------------------------------

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    # -- the answer, from upstream -----------------------------------------

    def interim_answer(self, head: AnswerHead) -> None:
        has_begun = self.began or self._exchange.answer is not None  # the latter by who was faster
        if self._exchange.head.minor and not has_begun:
            self._downstream.write(interim_head(head))

    def answer_began(self, head: AnswerHead, more: bool) -> None:
        self.answer = head
        if self._is_early:
            self._go_on(head)
        elif blames(head.status):
            self._held, self._held_for = [], BLAME_BYTES
        elif not more and head.status < 400 and self._judge.awaits_body:
            self._held, self._held_for = [], 1
        else:
            self._decide(head, more)

    def answer_piece(self, raw: bytes, payload: bytes) -> None:
        if self._held is not None:
            self._hold(raw, payload)
            return
        if self._is_silent and payload:
            self._is_silent = False
            assert self.answer is not None
            self._judge.answered(self.answer)
        exchange = self._exchange
        if self._whole is not None:
            self._keep(raw, payload)
        else:
            self._pass(raw, payload)
        exchange.observe(payload, self._loop)

    def answer_ended(self) -> None:
        head = self.answer
        assert head is not None
        self._upstream = None  # it may already carry somebody else's answer
        if self._is_early and self._held is not None:
            self._end_early(head)
            return
        if self._is_left():
            return
        if head.framing is Framing.CLOSE and not self._exchange.looks_whole(head):
            self.answer_failed(Failure.CUT)
            return
        if self._whole is not None:
            self._write_whole(head, b"".join([payload for _, payload in self._whole]))
            self._finish(None)
            return
        end = self._framed(self._stream.finish()) if self._stream is not None else b""
        if self._mode is Mode.CHUNK:
            end += b"0\r\n\r\n"
        if self._pending or end:
            self._write(self._pending + end)
            self._pending = b""
        self._finish(None)

    def answer_failed(self, failure: Failure) -> None:
        self._upstream = None
        if self._is_early and (self.answer is None or self._held is not None):
            self._say_and_cut(BROKEN_OFF)
            self._finish(failure)
            return
        if self._held is not None and self._held_for == 1:  # vLLM sends the head before it has begun to work
            self._finish(Failure.NO_ANSWER if failure is Failure.CUT else failure)
            return
        if self._is_left():
            return
        if self.began:
            rest = self._framed(self._stream.finish(cut=True)) if self._stream is not None else b""
            if self._pending or rest:
                self._write(self._pending + rest)
            self._downstream.cut(reset=self._mode is Mode.UNCHUNK)
        self._finish(failure)

    def still_silent(self) -> None:
        if self.began or self._is_early or not self._judge.leaves():
            return
        if self._upstream is not None:
            self._upstream.abandon(self)
        self.declined = True
        self._finish(Failure.UNRESPONSIVE)

    # -- watch -------------------------------------------------------------

    def check(self, now: float) -> None:
        """Break a silence that clients might take for the end."""
        if self.answer is None and not self._is_early:
            self._begin_early(now - self._last_write)
            return
        if self._stream is not None and not self._pending:
            comment = self._stream.comment_after(now - self._last_write)
            if comment:
                self._exchange.runtime.services.metrics.count("keepalive_comments")
                self._write(self._framed(comment))

    # -- a stream of our own, while the upstream has not begun its --------------

    def _begin_early(self, silence: float) -> None:
        """llama-server sends its head with the first token only, and comments need one."""
        rewrite = self._exchange.rewrite
        assert rewrite is not None and rewrite.keep_alive is not None
        if silence < rewrite.keep_alive:
            return
        self._is_early = self.began = True
        self._exchange.status, self._exchange.is_stream = 200, True
        self._stream, self._mode = rewrite.early_stream(), Mode.CHUNK
        self.keeps_alive = self._downstream.keeps_alive
        self._exchange.runtime.services.metrics.count("keepalive_comments")
        lines = EARLY_HEAD + (b"" if self.keeps_alive else b"Connection: close\r\n")
        self._write(lines + self._exchange.extra_lines() + b"\r\n" + self._framed(COMMENT))

    def _go_on(self, head: AnswerHead) -> None:
        """The upstream has begun: its events follow our comments, anything else ends as an error event."""
        exchange = self._exchange
        assert exchange.rewrite is not None
        exchange.answer = head
        stream = exchange.rewrite.stream_for(head)
        if stream is None:
            self._held, self._held_for = [], MAX_EARLY_ERROR_BYTES
        else:
            self._stream = stream
            exchange.watch_answer(head)

    def _end_early(self, head: AnswerHead) -> None:
        """What came is no stream: the client is told so, and not that all was well."""
        rewrite = self._exchange.rewrite
        assert rewrite is not None
        self._held = None
        if head.status < 400:
            self._say_and_cut(BROKEN_OFF)
            self._finish(Failure.BAD_BODY)
            return
        self._exchange.status = head.status  # as records and the access line are to have it
        self._say_and_cut(rewrite.error_event(head.status, self.reason))
        self._finish(None)

    def _say_and_cut(self, event: bytes) -> None:
        self._write(self._framed(event))
        self.keeps_alive = False
        self._downstream.cut(reset=False)

    # -- inside ------------------------------------------------------------

    def _decide(self, head: AnswerHead, more: bool) -> None:
        """Begin this answer, or leave it."""
        self.declined = self._judge.declines(head, self.reason)
        self.is_late = not self.declined and not self._judge.may_begin()
        if self.declined or self.is_late:
            if self._upstream is not None:
                self._upstream.abandon(self)
            self._finish(None)
            return
        if not self._judge.is_alone:
            self._downstream.forwarding(self)
        rewrite = self._exchange.rewrite
        if rewrite is not None:
            self._stream = rewrite.stream_for(head)
            limit = rewrite.whole_limit(head)
            if limit is not None:
                self._whole, self._whole_limit = [], limit
        self._exchange.watch_answer(head)
        if self._whole is not None:
            return
        self._begin(head)
        written = self._downstream_head(head)
        if more:
            self._pending = written
        else:
            self._write(written)

    def _hold(self, raw: bytes, payload: bytes) -> None:
        assert self._held is not None
        self._held.append((raw, payload))
        self.reason += payload
        if len(self.reason) < self._held_for:
            return
        if self._is_early:
            assert self.answer is not None
            if self._upstream is not None:
                self._upstream.abandon(self)
            self._end_early(self.answer)
        else:
            self._is_left()

    def _is_left(self) -> bool:
        """Whether what was held back is left to another attempt; if not, it is written now."""
        held, self._held = self._held, None
        if held is not None:
            assert self.answer is not None
            self._decide(self.answer, more=bool(held))
            if not self.declined and not self.is_late:
                for raw, payload in held:
                    self.answer_piece(raw, payload)
        return self.declined or self.is_late

    def _begin(self, head: AnswerHead) -> None:
        self.began = True
        self._exchange.answer, self._exchange.status = head, head.status

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._last_write = self._loop.time()
        self._downstream.write(data)

    def _pass(self, raw: bytes, payload: bytes) -> None:
        if self._mode is not _PASS:
            raw = self._reframed(payload)
        if self._pending:
            raw = self._pending + raw
            self._pending = b""
        if raw:
            self._write(raw)

    def _keep(self, raw: bytes, payload: bytes) -> None:
        assert self._whole is not None and self.answer is not None
        is_error = self.answer.status >= 400
        self._whole.append((raw if is_error else b"", payload))
        self._whole_bytes += len(payload)
        if self._whole_bytes <= self._whole_limit:
            return
        if is_error:
            self._let_go(self.answer)
        elif self._upstream is not None:
            self._upstream.abandon(self)
            self._finish(Failure.BAD_BODY)

    def _let_go(self, head: AnswerHead) -> None:
        """What was kept is too large to be rewritten: it goes on as it came."""
        assert self._whole is not None
        kept, self._whole = self._whole, None
        self._begin(head)
        self._pending = self._downstream_head(head)
        for raw, payload in kept:
            self._pass(raw, payload)

    def _write_whole(self, head: AnswerHead, body: bytes) -> None:
        """An answer that was rewritten in one piece, under a length of its own."""
        rewrite = self._exchange.rewrite
        assert rewrite is not None
        self._begin(head)
        head, body = rewrite.whole(head, body)
        self._write(self._downstream_head(head, length=len(body)) + body)

    def _finish(self, failure: Failure | None) -> None:
        if not self._has_finished:
            self._has_finished = True
            self._failure = failure
            self._end.end()

    def _downstream_head(self, head: AnswerHead, *, length: int | None = None) -> bytes:
        old_client = self._exchange.head.minor == 0
        if length is None and (head.framing is Framing.CLOSE or self._stream is not None):
            self._mode = Mode.UNCHUNK if old_client else Mode.CHUNK
        elif head.framing is Framing.CHUNKED and old_client and length is None:
            self._mode = Mode.UNCHUNK
        if self._stream is not None:
            self._last_write = self._loop.time()
            self._downstream.host.watch.add(self)
        self.keeps_alive = self._downstream.keeps_alive and self._mode is not Mode.UNCHUNK
        connection = b""
        if not self.keeps_alive:
            connection = b"close"
        elif old_client:
            connection = b"keep-alive"
        extra, replaced = self._exchange.extra_lines(), self._exchange.replaced_names
        if replaced:
            head = replace(head, dropped=head.dropped | replaced)
        if self._stream is not None and head.get(b"x-accel-buffering") is None:
            extra += b"X-Accel-Buffering: no\r\n"  # a stream of ours is none behind an nginx that collects it
        if length is not None:
            extra += b"Content-Length: %d\r\n" % length
        return answer_head(
            head,
            passes_chunks=self._mode is Mode.PASS and head.framing is Framing.CHUNKED and length is None,
            authors_chunks=self._mode is Mode.CHUNK,
            keeps_length=self._stream is None and length is None,
            connection=connection,
            extra=extra,
        )

    def _reframed(self, data: bytes) -> bytes:
        if self._stream is not None and data:
            data = self._stream.feed(data)
        return self._framed(data)

    def _framed(self, data: bytes) -> bytes:
        if self._mode is Mode.UNCHUNK or not data:
            return data
        return b"%x\r\n%b\r\n" % (len(data), data)
