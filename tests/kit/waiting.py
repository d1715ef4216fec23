"""Requests under way, each on a connection of its own."""

import asyncio
from types import TracebackType
from typing import Self

from kit.client import RawClient
from kit.wire import Response


class Waiting:
    """`async with Waiting(port) as waiting: …`; whoever still waits at its end is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[RawClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.transport.abort()

    async def send(self, *requests: bytes) -> None:
        for request in requests:
            client = await RawClient.connect(self._port)
            client.write(request)
            self._clients.append(client)

    async def answers(self, patience: float) -> list[Response]:
        """All of them, in the order of the requests."""
        return await asyncio.gather(*(client.read_response(b"POST", patience) for client in self._clients))
