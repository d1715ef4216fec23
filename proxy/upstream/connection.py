"""The byte path's upstream side: one connection, one exchange at a time.

An answer's bytes are handed on in the pieces in which they came, judged just
far enough to know where the answer ends and that it is one. What is wrong is
told apart by whether the request may have run, because only a request that
cannot have run may be sent again.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, cast

from proxy.wire.chunked import ChunkScanner
from proxy.wire.http1 import AnswerHead, BadHead, Framing, parse_answer_head

if TYPE_CHECKING:
    from proxy.upstream.connections import Connections

# TGI's and vLLM's heads are under 1 KiB; 64 KiB is what nginx's largest usual proxy_buffer_size allows.
MAX_ANSWER_HEAD_BYTES = 64 * 1024

# Informational answers before the final one: 103 comes once or twice in practice.
MAX_INTERIM_ANSWERS = 16

# Below this, head and body go out in one write; above, the copy costs more than the second system call.
JOINED_WRITE_BYTES = 64 * 1024

# What a reset connection may still hold in the kernel: more than any error answer.
MAX_SALVAGED_BYTES = 1024 * 1024


class Failure(Enum):
    """Why an exchange ended without a whole answer."""

    CONNECT = "connect_failed"
    UNSENT = "reset_before_sent"  # nothing of the request has arrived: it cannot have run
    NO_ANSWER = "reset_before_answer"
    BAD_HEAD = "bad_answer"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    UNRESPONSIVE = "unresponsive"  # the server answers nobody; said by who abandons it for that, never here
    CUT = "upstream_cut"
    BAD_BODY = "bad_framing"
    STALLED_READER = "client_stalled"


class Receiver(Protocol):
    """What an exchange tells its caller, always from the event loop, in this order."""

    def interim_answer(self, head: AnswerHead) -> None: ...
    def answer_began(self, head: AnswerHead, more: bool) -> None:
        """`more`: the first body bytes came with the head and follow at once."""

    def answer_piece(self, raw: bytes, payload: bytes) -> None:
        """`raw` as it came, framing included; `payload` the body bytes in it. Either may be empty."""

    def answer_ended(self) -> None: ...
    def answer_failed(self, failure: Failure) -> None: ...
    def still_silent(self) -> None:
        """No body byte has come, and for a while nothing at all; told again and again. One may abandon."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; `first_byte` runs until the first body byte, `idle` between pieces, `total` over all."""

    connect: float = 5.0
    first_byte: float = 300.0
    idle: float = 300.0
    total: float | None = None


class UpstreamConnection(asyncio.Protocol):
    """One TCP (or TLS) connection to an endpoint."""

    def __init__(self, home: "Connections", sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._sock = sock
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._feed: Callable[[bytes], None] = self._feed_head
        self._head = b""
        self._left = 0
        self._scanner: ChunkScanner | None = None
        self._answer: AnswerHead | None = None
        self._interim = 0
        self._unsent: tuple[bytes, ...] = ()  # the request, until the next flush
        self._request_bytes = 0
        self._method = b""
        self._paused = False
        self._last = 0.0
        self._began = 0.0
        self._timeouts = Timeouts()
        self._first_byte_seen = False
        self._has_ended = False
        self.is_reused = False
        self.is_counted = False
        self.idle_since = 0.0

    # -- the exchange ------------------------------------------------------

    def begin(
        self, head: bytes, body: bytes, receiver: Receiver, *, method: bytes, timeouts: Timeouts
    ) -> None:
        """Send a request; everything further comes through `receiver`."""
        assert self._transport is not None
        self._receiver, self._method, self._timeouts = receiver, method, timeouts
        self._feed, self._head, self._interim = self._feed_head, b"", 0
        self._answer, self._first_byte_seen = None, False
        self._request_bytes = len(head) + len(body)
        self._last = self._began = self._loop.time()
        self._home.watch.add(self)
        self._unsent = (head, body) if len(body) > JOINED_WRITE_BYTES else (head + body,)
        self._home.outflow.add(self)

    def flush(self) -> None:
        """Hand the request to the kernel."""
        unsent, self._unsent = self._unsent, ()
        if self._transport is not None:
            for piece in unsent:
                self._transport.write(piece)

    def abandon(self, receiver: Receiver | None = None) -> None:
        """`receiver` no longer wants its answer (None: nobody waits for one): closed at once.

        An exchange that is over is nobody's to abandon: its connection may carry another by now.
        """
        if self._receiver is receiver:
            self._receiver = None
            self._close()

    def pause(self) -> None:
        """The downstream side is full; take nothing more from the upstream."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._last = self._loop.time()
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._last = self._loop.time()
            self._transport.resume_reading()

    # -- asyncio.Protocol --------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:  # bytes that nobody asked for: this connection is not to be trusted
            self._close()
            return
        if self._unsent:  # likewise: it is no answer to what has not been sent
            self._fail(Failure.UNSENT)
            return
        self._last = self._home.heard = self._loop.time()
        if self._scanner is not None:  # nearly every piece of a stream
            self._feed_chunked(data)
        else:
            self._feed(data)

    def eof_received(self) -> None:
        self._has_ended = True
        if self._receiver is not None:
            self._end_by_close(clean=True)
        self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._receiver is not None and exc is not None:
            # Linux says EPIPE, not ECONNRESET, for a reset that came behind a FIN (tcp_reset in CLOSE_WAIT).
            self._has_ended = self._has_ended or isinstance(exc, BrokenPipeError)
            self._salvage()
        if self._receiver is not None:
            self._end_by_close(clean=exc is None)
        self._transport = None
        self._home.forget(self)

    # -- watch -------------------------------------------------------------

    def check(self, now: float) -> None:
        """Enforce the time-outs; called by the watch while an exchange runs."""
        limits = self._timeouts
        if limits.total is not None and now - self._began > limits.total:
            self._fail(Failure.TOTAL_TIMEOUT)
        elif self._paused:
            if now - self._last > limits.idle:
                self._fail(Failure.STALLED_READER)
        elif not self._first_byte_seen and now - self._began > limits.first_byte:
            self._fail(Failure.FIRST_BYTE_TIMEOUT)
        elif self._first_byte_seen and now - self._last > limits.idle:
            self._fail(Failure.IDLE_TIMEOUT)
        elif now - self._last > self._home.patience:
            self._home.was_silent(self._last, now)
            if not self._first_byte_seen and self._receiver is not None:
                self._receiver.still_silent()

    # -- reading the answer ------------------------------------------------

    def _feed_head(self, data: bytes) -> None:
        # Search from where the last look stopped, three bytes back for a blank line that was cut.
        start = max(len(self._head) - 3, 0)
        buffered = self._head + data if self._head else data
        end = buffered.find(b"\r\n\r\n", start)
        if end < 0:
            self._head = buffered
            if len(buffered) > MAX_ANSWER_HEAD_BYTES or not b"HTTP/1.".startswith(buffered[:7]):
                self._fail(Failure.BAD_HEAD)
            return
        self._head = b""
        try:
            head = self._read_head(buffered[: end + 4])
        except BadHead:
            self._fail(Failure.BAD_HEAD)
            return
        rest = buffered[end + 4 :]
        if head.status < 200:
            self._interim_head(head, rest)
        else:
            self._final_head(head, rest)

    def _read_head(self, raw: bytes) -> AnswerHead:
        if self._method == b"HEAD":  # the same head, and no body behind it
            return parse_answer_head(raw, method=self._method)
        return self._home.answer_heads.read(raw)

    def _interim_head(self, head: AnswerHead, rest: bytes) -> None:
        self._interim += 1
        # We never ask for an upgrade, so a 101 answers a question nobody put (RFC 9110, 15.2.2).
        if head.status == 101 or self._interim > MAX_INTERIM_ANSWERS:
            self._fail(Failure.BAD_HEAD)
            return
        if head.status != 100 and self._receiver is not None:  # a 100 answers an Expect we never send
            self._receiver.interim_answer(head)
        if rest and self._receiver is not None:
            self._feed_head(rest)

    def _final_head(self, head: AnswerHead, rest: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None
        self._answer = head
        if head.framing is Framing.CHUNKED:
            self._scanner = ChunkScanner()
            self._feed = self._feed_chunked
        elif head.framing is Framing.CLOSE:
            self._feed = self._feed_until_close
        else:
            self._left = head.length
            self._feed = self._feed_length
        receiver.answer_began(head, bool(rest))
        if self._receiver is None:  # the caller lost interest on seeing the head
            return
        if rest or (self._left == 0 and self._feed == self._feed_length):
            self._feed(rest)

    def _feed_length(self, data: bytes) -> None:
        assert self._receiver is not None
        extra = len(data) > self._left
        if extra:
            data = data[: self._left]
        self._left -= len(data)
        if data:
            self._first_byte_seen = True
            self._receiver.answer_piece(data, data)
        if self._left == 0:
            self._end(reusable=not extra)

    def _feed_chunked(self, data: bytes) -> None:
        scanner = self._scanner
        assert scanner is not None and self._receiver is not None
        try:
            raw = scanner.feed(data)
        except BadHead:
            if scanner.passable:
                self._receiver.answer_piece(scanner.passable, scanner.payload)
            self._fail(Failure.BAD_BODY)
            return
        if scanner.payload:
            self._first_byte_seen = True
        if raw:
            self._receiver.answer_piece(raw, scanner.payload)
        if scanner.done:
            self._end(reusable=not scanner.rest)

    def _feed_until_close(self, data: bytes) -> None:
        assert self._receiver is not None
        self._first_byte_seen = True
        self._receiver.answer_piece(data, data)

    # -- ending ------------------------------------------------------------

    def _end(self, *, reusable: bool) -> None:
        receiver, answer, transport = self._receiver, self._answer, self._transport
        if receiver is None or answer is None:
            return
        self._receiver = None
        self._scanner = None
        self._home.watch.discard(self)
        # An answer that came before the whole request was taken leaves the rest of it in the way.
        sent = transport is not None and transport.get_write_buffer_size() == 0
        self.resume()
        if reusable and sent and answer.keep_alive:
            self._home.give_back(self, was_stream=answer.framing is Framing.CHUNKED)
        else:
            self._close()
        receiver.answer_ended()

    def _end_by_close(self, *, clean: bool) -> None:
        if self._answer is not None:
            if clean and self._answer.framing is Framing.CLOSE:
                self._end(reusable=False)
            else:
                self._fail(Failure.CUT)
        elif self._head or self._interim:
            self._fail(Failure.BAD_HEAD)
        else:
            if self.is_reused:
                self._home.distrust()
            self._fail(Failure.NO_ANSWER if self._has_arrived() else Failure.UNSENT)

    def _fail(self, failure: Failure) -> None:
        receiver = self._receiver
        self._receiver = None
        self._close()
        if receiver is not None:
            receiver.answer_failed(failure)

    def _close(self) -> None:
        self._home.watch.discard(self)
        self._home.forget(self)
        self._unsent = ()
        if self._transport is not None:
            self._transport.abort()

    # -- the kernel's view -------------------------------------------------

    def is_alive(self) -> bool:
        """Whether the kernel still holds the connection to be open (the peer's FIN may be unread)."""
        if self._transport is None or self._transport.is_closing():
            return False
        state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state == 1  # TCP_ESTABLISHED

    def _has_arrived(self) -> bool:
        """Whether the peer's kernel has acknowledged any byte of the request.

        A server that had closed before the request came never acknowledges it,
        so the request cannot have run. Only its FIN proves that, because a FIN
        acknowledges all that came before it; a reset alone proves nothing.
        """
        assert self._transport is not None
        if self._unsent:
            return False
        if not self._has_ended:
            return True
        try:
            raw = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        except OSError:
            return True
        unacknowledged: int = struct.unpack("i", raw)[0]
        return unacknowledged + self._transport.get_write_buffer_size() < self._request_bytes

    def _salvage(self) -> None:
        """Read what a peer sent before it reset us: an early 413 must not be lost behind a failed write."""
        if self._home.is_tls:
            return
        taken = 0
        while self._receiver is not None and taken < MAX_SALVAGED_BYTES:
            try:
                data = self._sock.recv(64 * 1024)
            except OSError:
                return
            if not data:
                return
            taken += len(data)
            self._feed(data)
