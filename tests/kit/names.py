"""A name server of our own, on UDP and TCP."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from proxy.upstream.discovery.dns_message import encode_name, read_name

Answer = Callable[[str], bytes | None]


def srv(*services: tuple[int, int, int, str], code: int = 0, is_cut: bool = False) -> bytes:
    """Everything of a reply behind its number, but for the question."""
    records = b"".join(
        b"\xc0\x0c"
        + struct.pack("!HHIHHHH", 33, 1, 5, len(encode_name(target)) + 6, priority, weight, port)
        + encode_name(target)
        for priority, weight, port, target in services
    )
    return struct.pack("!HHHHH", 0x8180 | code | (0x0200 if is_cut else 0), 1, len(services), 0, 0) + records


class NameServer(asyncio.DatagramProtocol):
    """Answers as it is told; `udp` and `tcp` get the name and give the reply, or None for silence."""

    def __init__(self, udp: Answer, tcp: Answer) -> None:
        self._udp, self._tcp = udp, tcp
        self.asked: list[str] = []
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        reply = self._reply(data, self._udp, "udp")
        if reply is not None:
            self._transport.sendto(b"noise", addr)
            self._transport.sendto(b"\0\0" + reply[2:], addr)  # somebody who did not see the number
            self._transport.sendto(reply, addr)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        reply = self._reply(await reader.readexactly(length), self._tcp, "tcp")
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()

    def _reply(self, query: bytes, answer: Answer, by: str) -> bytes | None:
        name, end = read_name(query, 12)
        self.asked.append(f"{by} {name}")
        made = answer(name)
        return None if made is None else query[:2] + made[:10] + query[12 : end + 4] + made[10:]


@asynccontextmanager
async def name_server(
    udp: Answer, tcp: Answer = lambda name: None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    server = NameServer(udp, tcp)
    stream = await asyncio.start_server(server.serve, host, port)
    server.port = stream.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=(host, server.port))
    yield server
    transport.close()
    stream.close()
    await stream.wait_closed()
