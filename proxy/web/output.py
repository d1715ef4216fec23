"""What one client is sent: written when the loop's turn ends, and no faster than the client takes it."""

import asyncio
import socket
import struct
from typing import Protocol, cast

from proxy.web.host import Host

# Pieces above this are written at once: they fill the transport's buffer (64 KiB), and it must say so
# before more is read.
MAX_HELD_BYTES = 32 * 1024


class Flow(Protocol):
    """Whoever writes an answer piece by piece, and must be told when the client is slow."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Output(asyncio.BufferedProtocol):
    """A client's connection as far as writing to it goes."""

    transport: asyncio.Transport | None = None
    writing_paused = False
    _flow: Flow | None = None
    _writable: asyncio.Future[None] | None = None
    _unsent: tuple[bytes, ...] = ()  # what the next flush writes
    _ends_with_flush = False
    # aiohttp's Request and StreamWriter ask their protocol for these.
    peername: object = None
    peer_ip = ""
    ssl_context: object = None
    _paused = False

    def __init__(self, host: Host) -> None:
        self.host = host
        self.loop = host.loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        self.peername = peer = transport.get_extra_info("peername")
        self.peer_ip = str(peer[0]) if isinstance(peer, tuple) else "local"
        self.ssl_context = transport.get_extra_info("sslcontext")

    def write(self, data: bytes) -> None:
        if not self._unsent:
            self.host.outflow.add(self)
        self._unsent += (data,)
        if len(data) > MAX_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what was written to the kernel now."""
        unsent, self._unsent = self._unsent, ()
        if self.transport is None:
            return
        if unsent:
            self.transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
        if self._ends_with_flush:
            self.transport.close()

    @property
    def has_unsent(self) -> bool:
        """Something waits for the next flush."""
        return bool(self._unsent)

    @property
    def sockname(self) -> object:
        """Our own address; aiohttp's Request asks its protocol for it."""
        return self.transport.get_extra_info("sockname") if self.transport is not None else None

    # -- a slow client ------------------------------------------------------

    def pause_writing(self) -> None:
        self.writing_paused = self._paused = True
        if self._flow is not None:
            self._flow.pause()

    def _resumed(self) -> None:
        self.writing_paused = self._paused = False
        if self._flow is not None:
            self._flow.resume()
        self._wake_writer()

    async def _drain_helper(self) -> None:
        """aiohttp's StreamWriter waits here for a slow client."""
        if self.writing_paused and self.transport is not None:
            self._writable = self.loop.create_future()
            await self._writable
        if self.transport is None:
            raise ConnectionResetError("the client left")

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _linger_zero(self) -> None:
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
