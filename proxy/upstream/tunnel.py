"""Connections through an outbound proxy: to the proxy, a way from it, and TLS inside of that.

Each phase has a name, so that an error says how far it came, and one deadline
covers them all. What is said to the proxy is `wire.tunnel`'s affair.
"""

import asyncio
import socket
import ssl as tls
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

from proxy.upstream.dial import addresses, connected_socket
from proxy.wire.tunnel import HEAD, MAX_HEAD_BYTES, NoTunnel, OutboundProxy, ServerRefused, Talk

TO_PROXY = "connecting to its proxy"
PROXY_TLS = "TLS with its proxy"
NAME = "looking up its name"
TUNNEL = "asking its proxy for a way"
SERVER_TLS = "TLS through its proxy"

_Made = TypeVar("_Made", bound=asyncio.Protocol)


class ProxyFailed(OSError):
    """No connection through the proxy; `phase` says how far it came. Its text holds no credential."""

    def __init__(self, phase: str, why: str) -> None:
        super().__init__(f"{phase}: {why}")
        self.phase = phase


@dataclass(frozen=True, slots=True)
class Server:
    """Who is behind the proxy; `ssl` where TLS is spoken to it."""

    host: str
    port: int
    ssl: tls.SSLContext | None = None
    name: str = ""  # that its certificate must carry


def proxy_tls(proxy: OutboundProxy) -> tls.SSLContext | None:
    """TLS towards the proxy itself: always checked, because it gets credentials. Raises OSError."""
    if not proxy.is_tls:
        return None
    context = tls.create_default_context()
    if proxy.ca_file:
        context.load_verify_locations(proxy.ca_file)
    return context


class Tunnel:
    """Opens connections to one server through one proxy."""

    def __init__(self, proxy: OutboundProxy, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._server, self._loop = proxy, server, loop
        self._proxy_tls = proxy_tls(proxy)

    async def open(self, make: Callable[[socket.socket], _Made], within: float) -> _Made:
        """A connection that can be used, by the protocol that `make` makes; raises ProxyFailed."""
        deadline = self._loop.time() + within
        hosts = await self._hosts(deadline)
        for host in hosts[:-1]:
            try:
                return await self._open(make, host, deadline)
            except _NextAddress:
                continue
        return await self._open(make, hosts[-1], deadline)

    async def _hosts(self, deadline: float) -> list[str]:
        """What the proxy is asked to connect to: the name, or each of its addresses."""
        if self._proxy.resolves:
            return [self._server.host]
        async with _phase(NAME, deadline):
            found = await addresses(self._loop, self._server.host, self._server.port)
            if not found:
                raise OSError("no address")
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    async def _open(self, make: Callable[[socket.socket], _Made], host: str, deadline: float) -> _Made:
        async with _phase(TO_PROXY, deadline):
            sock = await connected_socket(self._loop, self._proxy.host, self._proxy.port)
        transport: asyncio.Transport | None = None
        try:
            async with _phase(PROXY_TLS, deadline):
                transport, line = await self._loop.create_connection(
                    lambda: _Line(self._loop),
                    sock=sock,
                    ssl=self._proxy_tls,
                    server_hostname=self._proxy.host if self._proxy.is_tls else None,
                )
            async with _phase(TUNNEL, deadline):
                await line.hold(self._proxy.talk(host, self._server.port))
            connection = make(sock)
            async with _phase(SERVER_TLS, deadline):
                await self._hand_over(transport, connection)
        except BaseException:
            if transport is not None:
                transport.abort()
            else:
                sock.close()
            raise
        return connection

    async def _hand_over(self, transport: asyncio.Transport, connection: asyncio.Protocol) -> None:
        """The connection's protocol gets the transport, with TLS in between where the server wants it."""
        server = self._server
        upper: asyncio.Transport | None
        if server.ssl is not None:
            name = server.name or server.host
            upper = await self._loop.start_tls(transport, connection, server.ssl, server_hostname=name)
        else:
            upper = transport
            upper.set_protocol(connection)
        if upper is None or upper.is_closing():
            raise ConnectionResetError("it ended")
        connection.connection_made(upper)


class _NextAddress(ProxyFailed):
    """The proxy works; it could not reach this address of the server."""


@asynccontextmanager
async def _phase(name: str, deadline: float) -> AsyncIterator[None]:
    """What fails in here, or takes too long, is a ProxyFailed of this name."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except ServerRefused as error:
        raise _NextAddress(name, str(error)) from error
    except NoTunnel as error:
        raise ProxyFailed(name, str(error)) from error
    except TimeoutError as error:
        raise ProxyFailed(name, "no answer in time") from error
    except OSError as error:
        raise ProxyFailed(name, str(error) or type(error).__name__) from error


class _Line(asyncio.Protocol):
    """The connection to the proxy until the way stands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._has_ended = False
        self._changed = asyncio.Event()

    async def hold(self, talk: Talk) -> None:
        """Say and read what the talk wants; raises NoTunnel or OSError."""
        assert self._transport is not None
        try:
            said, wanted = next(talk)
            while True:
                self._transport.write(said)
                said, wanted = talk.send(await self._read(wanted))
        except StopIteration:
            pass
        if self._received:  # a server that speaks before it was asked, or a proxy that says too much
            raise NoTunnel("more came than its answer")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_HEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()  # enough for any answer; whoever reads will say so
        self._changed.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        self._changed.set()

    async def _read(self, wanted: int) -> bytes:
        """So many bytes, or a head."""
        while (length := self._length(wanted)) is None:
            if self._has_ended:
                raise NoTunnel("it closed the connection")
            self._changed.clear()
            await self._changed.wait()
        taken, self._received = self._received[:length], self._received[length:]
        return taken

    def _length(self, wanted: int) -> int | None:
        """How much of what came is what is wanted; None while it is not there."""
        if wanted != HEAD:
            return wanted if len(self._received) >= wanted else None
        end = self._received.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end >= 0:
            return end + 4
        if len(self._received) >= MAX_HEAD_BYTES:
            raise NoTunnel("its answer is too long")
        return None
