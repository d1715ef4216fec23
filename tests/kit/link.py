"""One end of a TCP connection of which every byte, time and ending is recorded."""

import asyncio
import contextlib
import socket
import struct
from time import monotonic

from kit import wire
from kit.wire import Fields, Head, Malformed

# Long enough for a loaded machine: it ends a test that hangs, no test waits for it on purpose.
PATIENCE = 10.0

_LINGER_NOW = struct.pack("ii", 1, 0)


class Ended(Exception):
    """The peer's bytes ended (`how`: fin or rst) before what was being read was whole."""

    def __init__(self, how: str, partial: bytes = b"") -> None:
        super().__init__(f"{how} after {partial[:200]!r}")
        self.how = how
        self.partial = partial


class Silent(Exception):
    """Nothing more came within the time given; the connection is still open."""

    def __init__(self, partial: bytes = b"") -> None:
        super().__init__(f"silence after {partial[:200]!r}")
        self.partial = partial


class Link(asyncio.Protocol):
    """Received bytes in `received`, arrival times in `arrivals`, and `ending` once the peer ended."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.arrivals: list[tuple[float, int]] = []
        self.opened_at = 0.0
        self.ending: str | None = None
        self.ended_at: float | None = None
        self.is_lost = False
        self._read = 0
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.opened_at = monotonic()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.arrivals.append((monotonic(), len(data)))
        self._changed.set()

    def eof_received(self) -> bool:
        self._note("fin")
        # Our own side stays open until a test closes it; TLS has no half-closed connections.
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._note("local" if exc is None else "rst")
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _note(self, how: str) -> None:
        if self.ending is None or (self.ending == "fin" and how == "rst"):
            self.ending = how
            self.ended_at = self.ended_at or monotonic()
        self._changed.set()

    # -- the socket

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    @property
    def socket(self) -> socket.socket:
        return self.transport.get_extra_info("socket")

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def send(self, data: bytes, patience: float = PATIENCE) -> None:
        """Write, and wait until the peer's side has room."""
        self.write(data)
        async with asyncio.timeout(patience):
            await self._writable.wait()

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def half_close(self) -> None:
        self.transport.write_eof()

    def close(self) -> None:
        """End with a FIN, after what was written."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End with an RST; what the peer has not read yet stays readable for it."""
        if not self.transport.is_closing():
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOW)
        self.transport.abort()

    # -- reading

    @property
    def unread(self) -> bytes:
        return bytes(self.received[self._read :])

    def take(self, size: int) -> bytes:
        data = bytes(self.received[self._read : self._read + size])
        self._read += len(data)
        return data

    async def more(self, patience: float = PATIENCE) -> None:
        """Wait for a change; raises `Ended` when there will be none, `Silent` when none came."""
        if self.ending is not None:
            raise Ended(self.ending, self.unread)
        self._changed.clear()
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            raise Silent(self.unread) from None

    async def read_until(self, mark: bytes, patience: float = PATIENCE) -> bytes:
        """Bytes up to and with `mark`."""
        deadline = monotonic() + patience
        start = self._read
        while (at := self.received.find(mark, start)) < 0:
            start = max(self._read, len(self.received) - len(mark) + 1)
            await self.more(max(deadline - monotonic(), 0))
        return self.take(at + len(mark) - self._read)

    async def read_exactly(self, size: int, patience: float = PATIENCE) -> bytes:
        deadline = monotonic() + patience
        while len(self.received) - self._read < size:
            await self.more(max(deadline - monotonic(), 0))
        return self.take(size)

    async def read_to_end(self, patience: float = PATIENCE) -> bytes:
        """All that comes until the peer ends."""
        deadline = monotonic() + patience
        with contextlib.suppress(Ended):
            while True:
                await self.more(max(deadline - monotonic(), 0))
        return self.take(len(self.received))

    async def wait_end(self, patience: float = PATIENCE) -> str:
        """How the peer ended; raises `Silent` if it has not."""
        deadline = monotonic() + patience
        while self.ending is None:
            await self.more(max(deadline - monotonic(), 0))
        return self.ending

    # -- HTTP

    async def read_head(self, patience: float = PATIENCE) -> Head:
        return wire.parse_head(await self.read_until(b"\r\n\r\n", patience))

    async def read_chunks(self, into: list[bytes], patience: float = PATIENCE) -> Fields:
        """Chunks into the list as they come (so a cut leaves what came); returns the trailers."""
        while size := wire.chunk_size((await self.read_until(b"\r\n", patience))[:-2]):
            into.append(await self.read_exactly(size, patience))
            if await self.read_exactly(2, patience) != b"\r\n":
                raise Malformed("no line end after a chunk")
        trailers: Fields = []
        while (line := (await self.read_until(b"\r\n", patience))[:-2]) != b"":
            trailers.append(wire.trailer(line))
        return trailers
