"""An upstream that does what a test says, down to the byte, and records what it was sent.

    async def cut_short(connection, request):
        connection.write(HEAD + half)
        connection.reset()

    async with ScriptedUpstream(cut_short) as upstream: …

Requests are read strictly before the script runs; one that could be read in two
ways lands in `unclean`, which a test of hostile input requires to stay empty.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from time import monotonic
from types import TracebackType
from typing import Self

from kit import wire
from kit.link import PATIENCE, Ended, Link, Silent
from kit.wire import Malformed, Request


class Connection(Link):
    """The upstream's end of one connection from the gateway."""

    def __init__(self, upstream: "ScriptedUpstream") -> None:
        super().__init__()
        self._upstream = upstream
        self.number = 0
        self.served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._upstream._opened(self)

    async def read_request(self, patience: float = PATIENCE * 100) -> Request:
        """The next whole request, with its exact bytes."""
        begun = self._read
        request = wire.request_of(await self.read_head(patience))
        length, chunked = wire.length_of(request.head), wire.is_chunked(request.head)
        if chunked:
            pieces: list[bytes] = []
            request.trailers = await self.read_chunks(pieces, patience)
            request.body = b"".join(pieces)
        elif length:
            request.body = await self.read_exactly(length, patience)
        self.served += 1
        request.raw = bytes(self.received[begun : self._read])
        request.at, request.connection = monotonic(), self.number
        request.nth_on_connection = self.served
        return request

    async def stall(self) -> None:
        """Stay silent until the peer ends."""
        with contextlib.suppress(Ended):
            while True:
                await self.more(PATIENCE * 100)


RequestScript = Callable[[Connection, Request], Awaitable[None]]
ConnectionScript = Callable[[Connection], Awaitable[None]]


def replies(data: bytes, then: str = "keep") -> RequestScript:
    """Answer every request with these bytes; `then`: keep, fin, rst or stall."""

    async def script(connection: Connection, request: Request) -> None:
        connection.write(data)
        if then == "fin":
            connection.close()
        elif then == "rst":
            connection.reset()
        elif then == "stall":
            await connection.stall()

    return script


class ScriptedUpstream:
    def __init__(
        self,
        on_request: RequestScript | None = None,
        *,
        on_connection: ConnectionScript | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        backlog: int = 256,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.on_request = on_request or replies(wire.answer())
        self._on_connection = on_connection or self._serve
        self._backlog = backlog
        self._receive_buffer = receive_buffer
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.host, self.port = host, port
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.unclean: list[tuple[str, bytes]] = []
        self.unfinished: list[bytes] = []
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> Self:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.bind((self.host, self.port))
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), sock=sock, backlog=self._backlog, ssl=self._tls
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
        if error is None and self.failures:
            raise self.failures[0]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            if not connection.is_lost:
                connection.transport.abort()
        await asyncio.sleep(0)
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        return sum(connection.ending is None for connection in self.connections)

    async def wait_requests(self, number: int, patience: float = PATIENCE) -> list[Request]:
        """Wait until so many whole requests have come."""
        await self._wait(lambda: len(self.requests) >= number, patience, f"{number} requests")
        return self.requests

    async def wait_connections(self, number: int, patience: float = PATIENCE) -> list[Connection]:
        await self._wait(lambda: len(self.connections) >= number, patience, f"{number} connections")
        return self.connections

    async def _wait(self, done: Callable[[], bool], patience: float, what: str) -> None:
        deadline = monotonic() + patience
        while not done():
            self._changed.clear()
            try:
                async with asyncio.timeout(max(deadline - monotonic(), 0)):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"upstream still waits for {what}") from None

    def _opened(self, connection: Connection) -> None:
        connection.number = len(self.connections)
        self.connections.append(connection)
        self._changed.set()
        task = asyncio.ensure_future(self._run(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, connection: Connection) -> None:
        try:
            await self._on_connection(connection)
        except (Ended, Silent):
            if connection.unread:
                self.unfinished.append(connection.unread)
            connection.close()
        except Malformed as malformed:
            self.unclean.append((str(malformed), bytes(connection.received)))
            connection.close()
        except asyncio.CancelledError:
            raise
        except BaseException as failure:
            self.failures.append(failure)
            connection.close()

    async def _serve(self, connection: Connection) -> None:
        while not connection.is_lost and not connection.transport.is_closing():
            request = await connection.read_request()
            self.requests.append(request)
            if connection.unread:
                self.unclean.append(("bytes behind a request", connection.unread))
            self._changed.set()
            await self.on_request(connection, request)
