"""The clients: plain protocols in this process, none of whose work is the gateway's."""

import asyncio
import re
from collections.abc import Callable
from time import monotonic_ns

from rig.processes import key

END = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
STAMP = re.compile(rb'"at":"(\d{20})"')
CONNECTIONS = 16


def request(number: int, body: bytes) -> bytes:
    """A chat request with the key of that number."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer "
        + key(number).encode()
        + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )


def chat(model: str = "m") -> bytes:
    """1 KB, as a small question has."""
    return b'{"model":"%s","messages":[{"role":"user","content":"%s"}]}' % (model.encode(), b"x" * 950)


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it was answered, until there is nothing left to ask."""

    def __init__(self, next_request: Callable[[], bytes | None]) -> None:
        self._next = next_request
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._wanted = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionError("the gateway closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted and (end := self._received.find(END)) >= 0:
            found = LENGTH.search(self._received, 0, end)
            if not self._received.startswith(b"HTTP/1.1 200 ") or found is None:
                self._end(ConnectionError(f"answered {self._received[:200]!r}"))
                return
            self._wanted = end + len(END) + int(found[1])
        if self._wanted and len(self._received) >= self._wanted:
            self._received, self._wanted = b"", 0
            self._ask()

    def _ask(self) -> None:
        asked = self._next()
        if asked is None:
            self._end(None)
        else:
            self._transport.write(asked)

    def _end(self, failure: Exception | None) -> None:
        if not self.ended.done():
            if failure is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(failure)
            self._transport.abort()


async def ask_all(port: int, requests: list[bytes], connections: int = CONNECTIONS) -> None:
    """Every request once, so many at a time; ConnectionError unless all are answered well."""
    left = iter(requests)
    loop = asyncio.get_running_loop()
    askers = [
        (await loop.create_connection(lambda: Asker(lambda: next(left, None)), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(asker.ended for asker in askers))


class Listener(asyncio.Protocol):
    """One stream; how late each chunk came goes to `delays`, in seconds, while that is a list."""

    delays: list[float] | None = None

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self._transport: asyncio.Transport | None = None
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        transport.write(self._asked)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(exc or ConnectionError("the stream did not begin"))

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        if not self.begun.done():
            if not data.startswith(b"HTTP/1.1 200 "):
                self.begun.set_exception(ConnectionError(f"answered {data[:200]!r}"))
            else:
                self.begun.set_result(None)
        if Listener.delays is not None:
            # A stamp that was cut in two is left out.
            Listener.delays += [(now - int(stamp)) / 1e9 for stamp in STAMP.findall(data)]

    def close(self) -> None:
        self._transport.abort()


async def open_streams(port: int, count: int, asked: bytes, within: float) -> list[Listener]:
    """So many streams, begun one after the other over so many seconds, so that they don't go in step."""
    loop = asyncio.get_running_loop()
    began, listeners = loop.time(), []
    for number in range(count):
        ahead = began + within * number / count - loop.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        _, listener = await loop.create_connection(lambda: Listener(asked), "127.0.0.1", port)
        listeners.append(listener)
    await asyncio.gather(*(listener.begun for listener in listeners))
    return listeners
