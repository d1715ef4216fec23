"""The idle connections of one endpoint, and how new ones are made.

The newest idle connection is used first, so that the rest can age out. Idle
ones are dropped before the server would (uvicorn: 5 s, seen from 4.5), because a
request that meets a closing server is lost or, worse, runs twice. For the same
reason a connection waits a moment after its answer where the server is known, or
may turn out, to close without having said so.
"""

import asyncio
import logging
import socket
import ssl as tls
from functools import partial

from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dial import connected_socket
from proxy.upstream.outflow import Outflow
from proxy.upstream.tunnel import Server, Tunnel
from proxy.upstream.watch import Watch
from proxy.wire.head_memory import HeadMemory
from proxy.wire.http1 import parse_answer_head
from proxy.wire.tunnel import OutboundProxy

log = logging.getLogger(__name__)

# More idle connections than this to one server means that a burst just ended; the rest is closed.
MAX_IDLE_CONNECTIONS = 1024

# Bytes of answer heads that are remembered, twice over: a server has a handful at a time, because one
# line of each is the date. A thousand servers hold some 30 MiB so.
MAX_REMEMBERED_HEADS = 2 * 1024

# llama-server closes its socket within a millisecond after each stream without saying so, others after
# every answer. A connection that is still open after this pause will stay so.
SILENT_CLOSE_SECONDS = 0.05

# A request that follows the last one at once waits so long for its connection, looked at so often.
PROOF_SECONDS, PROOF_LOOKS = 0.01, 10

# A server that closed silently is expected to do so again for this long. Meanwhile it costs connections.
CAREFUL_SECONDS = 10.0

# After so many silent closes in a row behind streams there is no point in waiting for the next. Behind other
# answers there is: it is rarer, and looks the same as a server that was stopped several times.
ALWAYS = 3


# Who waits at a server that was heard since waits this many times as long before somebody asks again: a
# prompt that is worked on for minutes is no reason for a question every other second.
PATIENCE_WITH_THE_LIVING = 4.0

_NEVER = float("inf")


class Habit:
    """Whether a server keeps its connections after one kind of answer, as far as it was seen."""

    __slots__ = ("_careful_until", "_closed_in_a_row", "is_trusted")

    def __init__(self) -> None:
        self._careful_until = 0.0
        self._closed_in_a_row = 0
        self.is_trusted = False

    def always_closes(self, now: float) -> bool:
        return self._closed_in_a_row >= ALWAYS and now < self._careful_until

    def kept(self, now: float) -> None:
        """One stayed open, which says little of a server that was just seen to close another."""
        self._closed_in_a_row = 0
        self.is_trusted = now >= self._careful_until

    def closed(self, now: float) -> None:
        self._closed_in_a_row += 1
        self.is_trusted = False
        self._careful_until = now + CAREFUL_SECONDS


class Connections:
    """Makes, keeps and lends the connections to one address."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        watch: Watch,
        loop: asyncio.AbstractEventLoop,
        ssl: tls.SSLContext | None = None,
        server_name: str | None = None,
        proxy: OutboundProxy | None = None,
        keep_idle: float = 3.0,
    ) -> None:
        self._server = Server(host, port, ssl, server_name or host)
        self._tunnel = Tunnel(proxy, self._server, loop) if proxy is not None else None
        self._loop = loop
        self._keep_idle = keep_idle
        self._idle: dict[UpstreamConnection, Habit] = {}  # oldest first
        self._parked: dict[UpstreamConnection, tuple[Habit, asyncio.TimerHandle]] = {}
        self._after_stream, self._after_others = Habit(), Habit()
        self._closed = False
        self.answer_heads = HeadMemory(partial(parse_answer_head, method=b"POST"), MAX_REMEMBERED_HEADS)
        self.watch = watch
        self.outflow = Outflow(loop)
        self.is_tls = ssl is not None or (proxy is not None and proxy.is_tls)
        self.open = 0
        self.heard = 0.0  # when anything last came from the server, by the loop's clock
        self.patience = _NEVER  # seconds of silence after which somebody asks what is the matter
        self._silence = asyncio.Event()

    @property
    def idle(self) -> int:
        return len(self._idle)

    def take(self) -> UpstreamConnection | None:
        """An idle connection that the kernel still holds to be open, or None."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_alive():
                return connection
            connection.abandon()
        return None

    async def proven(self) -> UpstreamConnection | None:
        """The connection that has just been used, once it has shown that it stays; None if there is none.

        Only where nothing else runs, so that one request after the other goes
        over one connection. Of several at once each rather opens its own.
        """
        if not self._parked or self.open > len(self._parked):
            return None
        connection = next(reversed(self._parked))
        for _ in range(PROOF_LOOKS):
            await asyncio.sleep(PROOF_SECONDS / PROOF_LOOKS)
            if connection not in self._parked:
                return self.take()
        self._unpark(connection)
        return self.take()

    async def connect(self, within: float) -> UpstreamConnection:
        """Open a new connection within so many seconds; raises OSError (TimeoutError among them)."""
        if self._tunnel is not None:
            connection = await self._tunnel.open(self._made, within)
        else:
            async with asyncio.timeout(within):
                connection = await self._direct()
        self.open += 1
        connection.is_counted = True
        return connection

    def distrust(self) -> None:
        """A connection that seemed good was not."""
        now = self._loop.time()
        self._after_stream.closed(now)
        self._after_others.closed(now)

    def give_back(self, connection: UpstreamConnection, *, was_stream: bool) -> None:
        """The exchange is over and the connection may carry another."""
        habit = self._after_stream if was_stream else self._after_others
        if self._closed or len(self._idle) + len(self._parked) >= MAX_IDLE_CONNECTIONS:
            connection.abandon()
        elif habit.is_trusted:
            self._make_idle(connection, habit)
        elif was_stream and habit.always_closes(self._loop.time()):
            connection.abandon()
        else:
            timer = self._loop.call_later(SILENT_CLOSE_SECONDS, self._unpark, connection)
            self._parked[connection] = habit, timer

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is closed or closing."""
        if connection.is_counted:
            connection.is_counted = False
            self.open -= 1
        now = self._loop.time()
        if connection in self._parked:
            self._leave_parking(connection).closed(now)
        habit = self._idle.pop(connection, None)
        if habit is not None and now - connection.idle_since < SILENT_CLOSE_SECONDS:
            habit.closed(now)

    async def silence(self) -> None:
        """Wait until a request has heard nothing for longer than `patience`, and nobody else either."""
        self._silence.clear()
        await self._silence.wait()

    def was_silent(self, since: float, now: float) -> None:
        """An exchange has heard nothing `since`, which is longer than `patience`."""
        times = 1.0 if since >= self.heard else PATIENCE_WITH_THE_LIVING
        if now - self.heard > self.patience * times:
            self._silence.set()

    def check(self, now: float) -> None:
        """Drop what has been idle for too long; called by the watch while anything is idle."""
        for connection in list(self._idle):
            if now - connection.idle_since <= self._keep_idle:
                return
            connection.abandon()
        self.watch.discard(self)

    def close(self) -> None:
        """Close what is idle; connections in use close when their exchange ends."""
        self._closed = True
        for connection in (*self._idle, *self._parked):
            connection.abandon()
        self.watch.discard(self)

    def _make_idle(self, connection: UpstreamConnection, habit: Habit) -> None:
        connection.is_reused = True
        connection.idle_since = self._loop.time()
        self._idle[connection] = habit
        self.watch.add(self)

    def _unpark(self, connection: UpstreamConnection) -> None:
        if self._closed or not connection.is_alive():
            connection.abandon()
            return
        habit = self._leave_parking(connection)
        habit.kept(self._loop.time())
        self._make_idle(connection, habit)

    def _leave_parking(self, connection: UpstreamConnection) -> Habit:
        habit, timer = self._parked.pop(connection)
        timer.cancel()
        return habit

    def _made(self, sock: socket.socket) -> UpstreamConnection:
        return UpstreamConnection(self, sock, self._loop)

    async def _direct(self) -> UpstreamConnection:
        server = self._server
        sock = await connected_socket(self._loop, server.host, server.port)
        try:
            _, connection = await self._loop.create_connection(
                lambda: self._made(sock),
                sock=sock,
                ssl=server.ssl,
                server_hostname=server.name if server.ssl is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection
