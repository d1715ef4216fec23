"""A client that does nothing but note when bytes came.

A general HTTP client takes longer over a request than the gateway does, and its
time would be measured too.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

from proxy.wire.chunked import ChunkScanner
from proxy.wire.http1 import AnswerHead, BadHead, Framing, parse_answer_head

# Connecting to a server that is there takes no time; one that is not should be said soon.
CONNECT_SECONDS = 10.0

# No answer of a benchmark's requests takes longer, or it is not worth measuring.
ANSWER_SECONDS = 120.0

# What begins a server-sent event, which engines send for each token or few.
EVENT = b"data: "


class BenchError(Exception):
    """The benchmark cannot go on; the message is for the user."""


class Unheard(BenchError):
    """A connection that had served before was closed, and nothing of an answer had come."""


@dataclass(slots=True)
class Answer:
    """One request, as its client saw it. Times are perf_counter's."""

    asked: float
    status: int = 0
    first_byte: float = 0.0  # of the body
    ended: float = 0.0
    arrivals: list[float] = field(default_factory=list)  # of the body's pieces
    events: list[int] = field(default_factory=list)  # in each of them


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    prefix: str
    key: str

    @classmethod
    def of(cls, url: str, key: str = "") -> "Target":
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BenchError(f"{url} is no URL such as http://host:8000")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        return cls(parts.hostname, port, tls, parts.path.rstrip("/").removesuffix("/v1"), key)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request's bytes."""
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client(asyncio.Protocol):
    """One connection at a time to the target; a server that closes it gets a new one."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer = Answer(0.0)
        self._head: AnswerHead | None = None
        self._scanner = ChunkScanner()
        self._left = 0
        self._done: asyncio.Future[None] | None = None
        self._has_served = False
        self.answers: list[Answer] = []
        self.content: list[bytes] | None = None  # where somebody wants to read it

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for the end of its answer."""
        try:
            return await self._ask(request)
        except Unheard:  # llama-server ends its connection after a stream without saying so before
            self.answers.pop()
            return await self._ask(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _ask(self, request: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await self._connect(loop)
        assert self._transport is not None
        self._received, self._head = b"", None
        self._done = loop.create_future()
        answer = self._answer = Answer(perf_counter())
        self.answers.append(answer)
        self._transport.write(request)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._done
        except TimeoutError:
            raise BenchError(f"no answer within {ANSWER_SECONDS:.0f} s") from None
        if not self._may_go_on():
            self.close()
        return answer

    def _may_go_on(self) -> bool:
        return self._head is not None and self._head.keep_alive and self._head.framing is not Framing.CLOSE

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await loop.create_connection(lambda: self, target.host, target.port, ssl=target.tls)
        except OSError as error:
            raise BenchError(f"{target.host}:{target.port} cannot be reached: {error}") from error

    # -- asyncio.Protocol --------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._has_served = False
        self._transport = transport  # type: ignore[assignment]  # uvloop's is an asyncio.Transport by shape only

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        try:
            self._read(data, now)
        except BadHead as error:
            self._fail(BenchError(f"the server's answer is no clean HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._done is None or self._done.done():
            return
        if self._head is not None and self._head.framing is Framing.CLOSE:
            self._end(perf_counter())
        elif self._has_served and not self._received:
            self._fail(Unheard("the server closed the connection instead of an answer"))
        else:
            self._fail(BenchError("the server closed the connection inside an answer"))

    # -- inside ------------------------------------------------------------

    def _read(self, data: bytes, now: float) -> None:
        head = self._head
        if head is None:
            self._received += data
            end = self._received.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = self._begin(self._received[:end])
            data = self._received[end:]
        if head.framing is Framing.NONE or (head.framing is Framing.LENGTH and not self._left):
            self._end(now)
        elif data:
            self._take(head, data, now)

    def _begin(self, raw: bytes) -> AnswerHead:
        head = self._head = parse_answer_head(raw, method=b"POST")
        self._answer.status = head.status
        self._scanner = ChunkScanner()
        self._left = head.length
        return head

    def _take(self, head: AnswerHead, data: bytes, now: float) -> None:
        answer = self._answer
        answer.first_byte = answer.first_byte or now
        answer.arrivals.append(now)
        answer.events.append(data.count(EVENT))
        if self.content is not None:
            self.content.append(data)
        if head.framing is Framing.CHUNKED:
            self._scanner.feed(data)
            if self._scanner.done:
                self._end(now)
        elif head.framing is Framing.LENGTH:
            self._left -= len(data)
            if self._left <= 0:
                self._end(now)

    def _end(self, now: float) -> None:
        self._answer.ended = now
        self._has_served = True
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: BenchError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
        self.close()
