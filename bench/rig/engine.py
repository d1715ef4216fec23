"""An upstream that costs next to nothing, in a process of its own: `python -m rig.engine COUNT`.

It listens on COUNT addresses (127.0.0.1, 127.0.0.2, …), all on the port that it
prints. A request whose body begins with `{"every":SECONDS` is answered by a stream with a
chunk of 200 bytes at that interval, each with the time it was written; any other
by 1 KB of JSON. Bodies are counted and thrown away.
"""

import asyncio
import json
import re
import socket
import sys
from collections.abc import Iterator
from time import monotonic_ns

ANSWER = json.dumps({"id": "chatcmpl-1", "usage": {"total_tokens": 30}, "text": "x" * 940}).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"at":"%020d"}\n\n'
)
EVENT_LENGTH = len(EVENT % 0)
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
EVERY = re.compile(rb'\{"every":([0-9.]+)')


class Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None
        self._start = b""  # of the request, as far as it is of interest

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if self._start is not None and len(self._start) < 64:
                self._start += data[:64]
        else:
            head, _, content = data.partition(b"\r\n\r\n")
            found = LENGTH.search(head)
            self._left = (int(found[1]) if found else 0) - len(content)
            self._start = content[:64]
        if self._left <= 0:
            self._left = 0
            self._answer()

    def _answer(self) -> None:
        every = EVERY.match(self._start)
        if every is None:
            self._transport.write(HEAD + ANSWER)
        else:
            self._transport.write(STREAM_HEAD)
            self._go_on(float(every[1]))

    def _go_on(self, every: float) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (EVENT_LENGTH, EVENT % monotonic_ns()))
        self._timer = asyncio.get_running_loop().call_later(every, self._go_on, every)


def addresses(count: int) -> Iterator[str]:
    """So many addresses of this machine that nobody else can reach."""
    for number in range(count):
        yield f"127.0.{number // 250}.{number % 250 + 1}"


async def serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    port = 0
    for address in addresses(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        port = sock.getsockname()[1]
        await loop.create_server(Connection, sock=sock, backlog=4096)
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
