"""Outbound proxies: one of our own that notes what it is asked, and real ones as processes.

async with OutboundServer(user="u", password="p") as server:
    url = server.url("socks5h")
    …
assert server.asked == ["localhost:8000"]
"""

import asyncio
import base64
import contextlib
import shutil
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from kit.gateway import free_port
from kit.servers import Server

TINYPROXY = shutil.which("tinyproxy")
MICROSOCKS = shutil.which("microsocks")


class OutboundServer:
    """Speaks CONNECT and SOCKS 5 on one port, whichever the client begins with."""

    def __init__(
        self, *, user: str = "", password: str = "", tls: ssl.SSLContext | None = None, dribbles: bool = False
    ) -> None:
        self._user, self._password = user, password
        self._tls = tls
        self._dribbles = dribbles  # its answers come byte by byte
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.asked: list[str] = []  # host:port, or a name it would not serve, in the client's words
        self.heads: list[bytes] = []  # of CONNECT

    def url(self, scheme: str, *, password: str | None = None) -> str:
        secret = self._password if password is None else password
        login = f"{self._user}:{secret}@" if self._user else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End it with all its connections."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(1)
            way = await (
                self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer)
            )
            if way is not None:
                self._writers.append(way[1])
                await asyncio.gather(_pump(reader, way[1]), _pump(way[0], writer))
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for piece in [data[at : at + 1] for at in range(len(data))] if self._dribbles else [data]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        target = head.split(b" ")[1].decode("ascii")
        self.asked.append(target)
        login = base64.b64encode(f"{self._user}:{self._password}".encode())
        if self._user and b"\r\nProxy-Authorization: Basic " + login + b"\r\n" not in head:
            refusal = b"HTTP/1.1 407 Log in\r\nProxy-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nhello"
            await self._say(writer, refusal)
            return None
        host, _, port = target.rpartition(":")
        try:
            way = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            await self._say(writer, b"HTTP/1.1 503 Not there\r\nContent-Length: 0\r\n\r\n")
            return None
        await self._say(writer, b"HTTP/1.0 200 Connection established\r\nX-Proxy: kit\r\n\r\n")
        return way

    async def _socks(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        wanted = 2 if self._user else 0
        if wanted not in methods:
            await self._say(writer, b"\x05\xff")
            return None
        await self._say(writer, bytes((5, wanted)))
        if wanted:
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            is_known = (user, password) == (self._user.encode(), self._password.encode())
            await self._say(writer, b"\x01" + (b"\x00" if is_known else b"\x01"))
            if not is_known:
                return None
        *_, kind = await reader.readexactly(4)
        host = await _socks_host(kind, reader)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        try:
            way = await asyncio.open_connection(host, port)
        except OSError:
            await self._say(writer, b"\x05\x05\x00\x01\0\0\0\0\0\0")
            return None
        await self._say(writer, b"\x05\x00\x00\x03\x09somewhere\x00\x07")
        return way


async def _socks_host(kind: int, reader: asyncio.StreamReader) -> str:
    if kind == 3:
        return (await reader.readexactly((await reader.readexactly(1))[0])).decode("ascii")
    return str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes as they come; an end is passed on, and an end without manners is one too."""
    with contextlib.suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()


class RealProxy(Server):
    """tinyproxy or microsocks, with a user and a password."""

    user, password = "gate", "p0rt-canary"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def begin_tinyproxy(self) -> str:
        assert TINYPROXY is not None
        file = Path(self.folder) / "tinyproxy.conf"
        file.write_text(
            f"Port {self.port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\n"
            f"BasicAuth {self.user} {self.password}\n"
        )
        self.start([TINYPROXY, "-d", "-c", file], self._accepts)
        return f"http://{self.user}:{self.password}@127.0.0.1:{self.port}"

    def begin_microsocks(self) -> str:
        assert MICROSOCKS is not None
        login = ("-u", self.user, "-P", self.password)
        self.start([MICROSOCKS, "-i", "127.0.0.1", "-p", str(self.port), *login], self._accepts)
        return f"socks5h://{self.user}:{self.password}@127.0.0.1:{self.port}"

    def _accepts(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0
