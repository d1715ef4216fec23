"""The idle connections of one endpoint, and how new ones are made.

The newest idle connection is used first, so that the rest can age out. Idle
ones are dropped before the server would (uvicorn: 5 s, seen from 4.5), because a
request that meets a closing server is lost or, worse, runs twice.
"""

import asyncio
import logging
import socket
import ssl as tls
from enum import Enum
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

# llama-server closes its socket within a millisecond after each stream without saying so.
# A connection that is still open after this pause will stay so.
SILENT_CLOSE_SECONDS = 0.05


class AfterStream(Enum):
    """What this server does with a connection once it has streamed an answer on it."""

    UNKNOWN = "unknown"
    STAYS = "stays"
    CLOSES = "closes"


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
        self._idle: dict[UpstreamConnection, None] = {}  # oldest first
        self._parked: set[UpstreamConnection] = set()
        self._after_stream = AfterStream.UNKNOWN
        self._closed = False
        self.answer_heads = HeadMemory(partial(parse_answer_head, method=b"POST"), MAX_REMEMBERED_HEADS)
        self.watch = watch
        self.outflow = Outflow(loop)
        self.is_tls = ssl is not None or (proxy is not None and proxy.is_tls)
        self.open = 0

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
        """A connection that seemed good was not: learn anew how this server ends streams."""
        self._after_stream = AfterStream.UNKNOWN

    def give_back(self, connection: UpstreamConnection, *, was_stream: bool) -> None:
        """The exchange is over and the connection may carry another."""
        if self._closed or len(self._idle) >= MAX_IDLE_CONNECTIONS:
            connection.abandon()
        elif not was_stream or self._after_stream is AfterStream.STAYS:
            self._make_idle(connection)
        elif self._after_stream is AfterStream.CLOSES:
            connection.abandon()
        else:
            self._parked.add(connection)
            self._loop.call_later(SILENT_CLOSE_SECONDS, self._unpark, connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is closed or closing."""
        if connection in self._parked:
            self._parked.discard(connection)
            self._after_stream = AfterStream.CLOSES
        if connection.is_counted:
            connection.is_counted = False
            self.open -= 1
        self._idle.pop(connection, None)

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
        for connection in [*self._idle, *self._parked]:
            connection.abandon()
        self.watch.discard(self)

    def _make_idle(self, connection: UpstreamConnection) -> None:
        connection.is_reused = True
        connection.idle_since = self._loop.time()
        self._idle[connection] = None
        self.watch.add(self)

    def _unpark(self, connection: UpstreamConnection) -> None:
        if connection not in self._parked:
            return
        self._parked.discard(connection)
        if self._closed or not connection.is_alive():
            self._after_stream = AfterStream.CLOSES
            connection.abandon()
            return
        self._after_stream = AfterStream.STAYS
        self._make_idle(connection)

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
