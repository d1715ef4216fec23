"""The byte path's downstream side: one client connection.

It reads heads with our own strict parser, hands each request to the aiohttp
application as a `web.Request`, and lets the handler write the answer's bytes
straight to the transport. One request is served at a time; what a client
pipelines waits, bounded. Every state has a deadline.
"""

import asyncio
import logging
import socket
from enum import Enum
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proxy.errors import BadRequest, HeadTooLarge, ProxyError, RequestTimeout, TargetTooLong
from proxy.runtime import Runtime
from proxy.web.answer import Sent, plain_answer
from proxy.web.body import Content, RequestBody, whole
from proxy.web.host import Host
from proxy.web.output import Flow, Output
from proxy.web.request import Request
from proxy.web.run import Run
from proxy.wire.http1 import MAX_TARGET_BYTES, RequestHead

if TYPE_CHECKING:
    from proxy.web.exchange import Exchange

log = logging.getLogger(__name__)

# What a client may send ahead of the answer it waits for. One that sends more gets its answer and
# then the connection's end; the surplus is thrown away, because only reading on shows that it left.
MAX_PIPELINED_BYTES = 1024 * 1024

# After an error answer the rest of the request is read and thrown away for so long, because closing
# with unread input would reset the connection and take the answer with it (nginx: lingering_time).
LINGER_SECONDS = 2.0

# A client that does not take the last bytes of its answer is let go after this.
FLUSH_SECONDS = 10.0

CR: Final = 13
LF: Final = 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(Enum):
    IDLE = "idle"  # between requests; nothing of the next has come
    HEAD = "head"
    BUSY = "busy"  # a handler runs
    FULL = "full"  # answered; the client must take that before it is served again
    LINGERING = "lingering"  # answered; the rest of the input is thrown away
    CLOSING = "closing"  # answered; the output drains


class DownstreamConnection(Output):
    """One client's connection. `is_gone` tells that the client left."""

    # What a connection begins with; most of it never changes on a short one.
    _state = State.IDLE
    _buffer = b""
    _content = b""
    _body: RequestBody | None = None
    _continue_sent = False
    run: Run | None = None  # the handlers at work
    _reading_paused = False
    _fills_body = False  # the next input goes straight into the body
    _is_flooded = False
    _served = 0
    head: RequestHead | None = None
    exchange: "Exchange | None" = None  # the one that runs
    runtime: Runtime
    is_gone = False
    is_forwarding = False
    is_routed = False  # aiohttp's router found the handler of the request that runs
    aborted_for = ""
    # aiohttp's Request and StreamWriter ask their protocol for these.
    max_field_size = 8190
    max_line_size = 8190
    max_headers = 128

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._since = host.loop.time()  # when the state began; in BUSY, when the last input came
        self._inbox = host.inbox

    # -- asyncio.BufferedProtocol ------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.host.connections.add(self)
        self.host.watch.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next input goes: into the body that somebody waits for, or to all connections' inbox."""
        body = self._body
        if body is None:
            return self._inbox.first
        room = body.room()
        self._fills_body = room is not None
        if room is not None:
            return room
        return self._inbox.first if body.will_have_room else self._inbox.whole

    def buffer_updated(self, nbytes: int) -> None:
        body = self._body
        if body is not None and self._fills_body:
            self._since = self.loop.time()
            body.filled(nbytes)
        else:
            self._received(self._inbox.take(nbytes))

    def _received(self, data: bytes) -> None:
        state = self._state
        if state is State.BUSY:
            self._since = self.loop.time()
            self._more_input(data)
        elif state is State.IDLE or state is State.HEAD:
            self._read_head(data)
        elif state is State.FULL:
            self._more_input(data)

    def eof_received(self) -> bool:
        """The client will send no more; while we forward, that means that it left (as nginx has it)."""
        wanted = self._state is State.BUSY and not self.is_forwarding and self._has_whole_request()
        if wanted and self.ssl_context is None:  # TLS has no half-closed connections
            self.is_gone = True
            return True
        self.flush()  # the transport closes itself now, and takes nothing more
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self.transport = None
        self._wake_writer()
        self.host.connections.discard(self)
        self.host.watch.discard(self)

    def resume_writing(self) -> None:
        self._resumed()
        if self._state is State.FULL:
            self._enter(State.BUSY)
            self._go_on()

    # -- what handlers use -------------------------------------------------

    async def read_body(self, limit: int) -> bytes:
        """The request's whole body; a client that expects 100-continue is told to go on first."""
        body, head = self._body, self.head
        if body is None or head is None:
            return whole(self._content, limit)
        is_waiting = head.expects_continue and not self._continue_sent and not body.is_complete
        if is_waiting and (head.content_length or 0) <= limit:
            self._continue_sent = True
            self.write(CONTINUE)
        return await body.read(limit)

    def body_nowait(self, limit: int) -> bytes | None:
        """The request's whole body if it is here in one piece, or empty; None to await `read_body`."""
        return whole(self._content, limit) if self._body is None else None

    def payload(self) -> RequestBody | Content:
        """The body, for aiohttp's `Request`."""
        return self._body or Content(self._content)

    def forwarding(self, flow: Flow | None) -> None:
        """From now on (until None) `flow` writes the answer; a client that leaves cancels the handler."""
        self._flow = flow
        self.is_forwarding = flow is not None
        if flow is not None and self.writing_paused:
            flow.pause()

    def cut(self, *, reset: bool) -> None:
        """End an answer that is not whole, so that nobody can take it for a whole one.

        What was written still flows; then the connection ends without the
        answer's own end. With `reset` the end itself is an error (for answers
        that end with the connection).
        """
        if self.transport is None:
            return
        self.flush()
        if reset:
            self._linger_zero()
        self._enter(State.CLOSING)
        if reset and self.transport.get_write_buffer_size() == 0:
            self.transport.abort()
        else:
            self._close()

    def abort(self, reason: str) -> None:
        """End whatever runs, at once: the server stops."""
        self.aborted_for = reason
        if self.run is not None:
            self.run.cancel()
        elif self.transport is not None:
            self.transport.abort()

    def drain(self, *, at_once: bool) -> None:
        """Take no other request; one that is on its way may still come, unless `at_once`."""
        is_waiting = self._state in (State.IDLE, State.HEAD, State.FULL)
        if is_waiting and (at_once or not self.is_expecting) and self.transport is not None:
            self.flush()
            self.transport.close()

    @property
    def is_busy(self) -> bool:
        return self._state is State.BUSY

    @property
    def is_expecting(self) -> bool:
        """A request should come: the head has begun, or the client has just connected."""
        return self._state is State.HEAD or (self._state is State.IDLE and not self._served)

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may carry another request after this one."""
        head, body = self.head, self._body
        return (
            head is not None
            and head.keep_alive
            and (body is None or body.is_complete)
            and not self.is_gone
            and not self._is_flooded
            and not self.host.is_draining
        )

    # -- watch -------------------------------------------------------------

    def check(self, now: float) -> None:
        """Enforce the deadlines; called by the watch."""
        waited = now - self._since
        if self._state is State.BUSY:
            self._check_busy(waited)
        elif self._state is State.IDLE:
            allowed = self.host.limits.idle_timeout if self._served else self.host.limits.read_timeout
            if waited > allowed:
                self._close()
        elif self._state is State.HEAD:
            if waited > self.host.limits.read_timeout:
                self._refuse(self._buffer, RequestTimeout("The request head did not arrive in time."))
        elif self._state is State.LINGERING:
            if waited > LINGER_SECONDS:
                self._close()
        elif self._state is State.FULL:
            if waited > self.host.limits.idle_timeout and self.transport is not None:
                self.transport.abort()
        elif waited > FLUSH_SECONDS and self.transport is not None:
            self.transport.abort()

    def _check_busy(self, waited: float) -> None:
        body = self._body
        if self._reading_paused:
            if self._peer_has_left():
                self._leave()
                if self.transport is not None:
                    self.transport.abort()
        elif body is not None and not body.is_complete and waited > self.host.limits.read_timeout:
            body.time_out()

    def _peer_has_left(self) -> bool:
        """While reading is paused no FIN is seen; the kernel knows (tcpi_state is not ESTABLISHED)."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1)

    # -- reading -----------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        start = max(len(self._buffer) - 3, 0)
        data = self._buffer + data if self._buffer else data
        if data[0] == CR or data[0] == LF:
            self._skip_blank(data)
            return
        end = data.find(b"\r\n\r\n", start)
        if end < 0 or end + 4 > self.host.limits.head_bytes:
            self._buffer = data
            if self._state is State.IDLE:
                self._enter(State.HEAD)
            if len(data) > self.host.limits.head_bytes:
                self._refuse(data, self._too_large(data))
            elif not _may_be_head(data):
                self._refuse(data, BadRequest("What came is not an HTTP/1.1 request."))
            return
        self._buffer = b""
        self.runtime = runtime = self.host.runtime
        try:
            head = runtime.heads.read(data[: end + 4])
        except ProxyError as error:
            self._refuse(data, error)
            return
        self._begin(head, data[end + 4 :])

    def _skip_blank(self, data: bytes) -> None:
        """RFC 9112, 2.2: one empty line before a request is skipped. It is no request and buys no time."""
        if data in (b"\r", b"\r\n"):
            self._buffer = data
        elif not data.startswith(b"\r\n") or data[2:3] in (b"\r", b"\n"):
            self._refuse(data, BadRequest("What came is not an HTTP/1.1 request."))
        else:
            self._buffer = b""
            self._read_head(data[2:])

    @staticmethod
    def _too_large(data: bytes) -> ProxyError:
        if b"\r\n" not in data[: MAX_TARGET_BYTES + 100]:
            return TargetTooLong("The request target is too long.")
        return HeadTooLarge("The request head is too large.")

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        self.head = head
        self._enter(State.BUSY)
        if len(rest) == head.content_length and not head.expects_continue:
            self._content, rest = rest, b""  # the usual request comes in one piece
        elif head.has_body:
            self._body = body = RequestBody(head, self._want_body)
            if rest:
                rest = body.feed(rest)
        self._buffer = rest
        self.run = run = Run(self.loop)
        run.begin(self._serve(Request(self, head)))

    def _more_input(self, data: bytes) -> None:
        body = self._body
        if body is not None and not body.is_complete:
            data = body.feed(data)
            if body.is_full:
                self._pause_reading()
        if data and not self._is_flooded:
            self._buffer += data
            if len(self._buffer) > MAX_PIPELINED_BYTES:
                self._buffer = b""
                self._is_flooded = True

    def _want_body(self) -> None:
        self._since = self.loop.time()
        self._resume_reading()

    def _has_whole_request(self) -> bool:
        return self._body is None or self._body.is_complete

    # -- serving -----------------------------------------------------------

    async def _serve(self, request: Request) -> None:
        try:
            response = await self.host.handler(request)
            self.run = None
            if isinstance(response, Sent):
                if not response.is_cut:
                    self._next(keep_alive=response.keeps_alive and self.keeps_alive)
            else:
                await self._answer(request, response)
        except asyncio.CancelledError:
            self.run = None
            self._unwound()
        except Exception:
            log.exception("a handler failed")
            self.run = None
            self._close()

    async def _answer(self, request: Request, response: web.StreamResponse) -> None:
        """Write an answer of our own."""
        keep_alive = self.keeps_alive
        if isinstance(response, web.Response) and not response.prepared:
            head = self.head
            assert head is not None
            self.write(plain_answer(response, head, keep_alive=keep_alive))
        else:
            self.flush()
            await response.prepare(request)
            await response.write_eof()
            keep_alive = bool(response.keep_alive) and keep_alive
        self._next(keep_alive=keep_alive)

    def _next(self, *, keep_alive: bool) -> None:
        """The answer is out: serve what was pipelined, wait, or close."""
        self._served += 1
        unread = self._body is not None and not self._body.is_complete
        self.head = self._body = self._flow = None
        self._content = b""
        self.is_forwarding = self._continue_sent = False
        if self.transport is None:
            return
        if not keep_alive:
            self._linger() if unread or self._buffer or self._is_flooded else self._close()
            return
        if self.writing_paused:
            self._enter(State.FULL)
            self._pause_reading()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """To what was pipelined, or to waiting."""
        if self._reading_paused:
            self._resume_reading()
        if self._buffer:
            # In a turn of its own: a thousand small requests that came together are not a stack that deep.
            self.loop.call_soon(self._read_pipelined)
        else:
            self._enter(State.IDLE)

    def _read_pipelined(self) -> None:
        data, self._buffer = self._buffer, b""
        if self.transport is not None and not self.transport.is_closing():
            self._enter(State.IDLE)
            self._read_head(data)

    def _refuse(self, received: bytes, error: ProxyError) -> None:
        """Answer what could not be read, and end the connection: nothing behind it can be trusted."""
        self._buffer = b""
        self.write(self.host.refused(self, error, is_head=received.startswith(b"HEAD ")))
        self._linger()

    def _unwound(self) -> None:
        """A cancelled handler is done: the client left, or the server stops."""
        if self.transport is not None:
            self.transport.abort()

    # -- ending ------------------------------------------------------------

    def _leave(self) -> None:
        """The client is gone: whoever works for it is told at once, unless the end was ours."""
        self.is_gone = True
        if self.run is not None and self._state is State.BUSY:
            self.run.cancel()

    def _linger(self) -> None:
        """Let the answer arrive before the connection goes: stop writing, throw away what still comes."""
        transport = self.transport
        if transport is None:
            return
        self._enter(State.LINGERING)
        self._resume_reading()
        self.flush()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        """Once everything is written, which waits for the others' writes as any other does."""
        if self.transport is None:
            return
        self._enter(State.CLOSING)
        if self._unsent:
            self._ends_with_flush = True
        else:
            self.transport.close()

    def _enter(self, state: State) -> None:
        self._state = state
        self._since = self.loop.time()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()


def _may_be_head(data: bytes) -> bool:
    """Whether unfinished input can still become a request: refuse TLS hellos and HTTP/0.9 early."""
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return line[:1].isalpha() or line[:1] in b"!#$%&'*+-.^_`|~0123456789"
    return b" HTTP/" in line
