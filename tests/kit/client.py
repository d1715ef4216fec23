"""A client that sends exactly the bytes it is given and reads answers strictly."""

import asyncio
import socket
import ssl
from time import monotonic
from types import TracebackType
from typing import Self

from kit import wire
from kit.link import PATIENCE, Ended, Link, Silent
from kit.wire import Head, Malformed, Response


class RawClient(Link):
    """`async with await RawClient.connect(port) as client: …`"""

    @classmethod
    async def connect(
        cls, port: int, *, receive_buffer: int | None = None, tls: ssl.SSLContext | None = None
    ) -> Self:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, ("127.0.0.1", port))
            name = "localhost" if tls is not None else None
            _, client = await loop.create_connection(cls, sock=sock, ssl=tls, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_lost:
            self.transport.abort()

    async def ask(self, request: bytes, patience: float = PATIENCE) -> Response:
        """Send a request and read its answer."""
        await self.send(request)
        return await self.read_response(request.split(b" ", 1)[0], patience)

    async def read_response(self, method: bytes = b"GET", patience: float = PATIENCE) -> Response:
        """The next final answer. A cut one is returned too, with `end` saying how it was cut."""
        informational: list[Head] = []
        while True:
            response = wire.response_of(await self.read_head(patience))
            if response.status >= 200:
                break
            informational.append(response.head)
        response.informational = informational
        try:
            await self._read_body(response, method, patience)
        except Ended as ended:
            response.end = ended.how
        except Silent:
            response.end = "silent"
        return response

    async def _read_body(self, response: Response, method: bytes, patience: float) -> None:
        head = response.head
        length, chunked = wire.length_of(head), wire.is_chunked(head)
        if method == b"HEAD" or response.status in (204, 304):
            return
        if chunked:
            response.framing = "chunked"
            try:
                response.trailers = await self.read_chunks(response.chunks, patience)
            finally:
                response.body = b"".join(response.chunks)
        elif length is not None:
            response.framing = "length"
            response.body = await self._up_to(length, patience, response)
        else:
            response.framing = "close"
            await self._until_close(response, patience)

    async def _up_to(self, length: int, patience: float, response: Response) -> bytes:
        try:
            return await self.read_exactly(length, patience)
        except (Ended, Silent):
            response.body = self.take(len(self.unread))
            raise

    async def _until_close(self, response: Response, patience: float) -> None:
        """A body that ends with the connection: a FIN completes it, an RST does not."""
        deadline = monotonic() + patience
        while self.ending is None:
            await self.more(max(deadline - monotonic(), 0))
        response.body = self.take(len(self.unread))
        if self.ending != "fin":
            raise Ended(self.ending)


async def ask(port: int, request: bytes, patience: float = PATIENCE) -> Response:
    """One request on a connection of its own."""
    async with await RawClient.connect(port) as client:
        return await client.ask(request, patience)


async def outcome(port: int, request: bytes, patience: float = PATIENCE) -> Response | str:
    """As `ask`, but a connection that ends without an answer is a result too: its ending."""
    try:
        return await ask(port, request, patience)
    except Ended as ended:
        return ended.how if not ended.partial else f"{ended.how} inside a head"
    except Silent:
        return "silent"


__all__ = ["Ended", "Malformed", "RawClient", "Silent", "ask", "outcome"]
