"""One small question to an endpoint: is it well, what does it serve, how busy is it?

Asked the way requests are sent, with the same TLS, outbound proxy and credential,
but always on a connection of its own, because whether one can connect is part of
the question.
"""

import asyncio
from dataclasses import dataclass

from proxy.upstream.connection import Failure, Timeouts
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import Endpoint
from proxy.wire.http1 import AnswerHead

# vLLM's /metrics is 57 KB, a list of a thousand models some 300 KB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class NoAnswer(Exception):
    """The endpoint gave no usable answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


async def ask(endpoint: Endpoint, target: str, *, within: float, method: str = "GET") -> Answer:
    """Ask and read the whole answer within so many seconds, or raise NoAnswer."""
    head = _head(endpoint, method, target)
    return await converse(endpoint.connections, head, b"", method=method, within=within)


async def converse(
    connections: Connections, head: bytes, body: bytes, *, method: str, within: float
) -> Answer:
    """Send a request on a new connection and read the whole answer, or raise NoAnswer."""
    receiver = _Receiver()
    try:
        async with asyncio.timeout(within):
            connection = await connections.connect(within)
            try:
                connection.begin(
                    head,
                    body,
                    receiver,
                    method=method.encode("ascii"),
                    timeouts=Timeouts(within, within, within, within),
                )
                return await receiver.answer
            finally:
                connection.abandon(receiver)
    except TimeoutError as error:
        raise NoAnswer("no answer in time") from error
    except OSError as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def _head(endpoint: Endpoint, method: str, target: str) -> bytes:
    spec = endpoint.spec
    lines = [
        b"%b %b%b HTTP/1.1" % (method.encode("ascii"), spec.base_path, target.encode("ascii")),
        b"Host: " + spec.authority,
        b"User-Agent: llmproxy-check",
        b"Accept: */*",
        b"Connection: close",
        *(name + b": " + value for name, value in endpoint.headers),
    ]
    if method == "POST":
        lines.append(b"Content-Length: 0")
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Receiver:
    """Collects one small answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def interim_answer(self, head: AnswerHead) -> None:
        pass

    def answer_began(self, head: AnswerHead, more: bool) -> None:
        self._status = head.status

    def answer_piece(self, raw: bytes, payload: bytes) -> None:
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size > MAX_ANSWER_BYTES and not self.answer.done():
            self.answer.set_exception(NoAnswer("the answer is too large"))

    def answer_ended(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(self._status, b"".join(self._pieces)))

    def answer_failed(self, failure: Failure) -> None:
        if not self.answer.done():
            self.answer.set_exception(NoAnswer(failure.value))

    def still_silent(self) -> None:
        pass  # a question has its own time-out
