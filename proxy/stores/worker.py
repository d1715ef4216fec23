"""Threads for calls that block, with nothing of them on the event loop.

Daemon threads, unlike an executor's: a call that never returns must not keep
the process from ending.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

# Calls that wait for a thread. A key takes SQLite 50 us, so this is a twentieth of a
# second; whatever comes on top is told that the store is overrun.
MAX_WAITING = 1024


class WorkerBusy(Exception):
    """Too many calls wait already."""


class Worker:
    """Calls run in the order they came; belongs to whoever closes it."""

    def __init__(self, name: str, *, threads: int = 1) -> None:
        self._name = name
        self._count = threads
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    async def run(self, call: Callable[[], Result]) -> Result:
        """What the call returns or raises; one whose caller has left before it began is skipped."""
        if self._waiting >= MAX_WAITING:
            raise WorkerBusy
        self._start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting += 1
        try:
            self._calls.put(lambda: _carry_out(call, future, loop))
            return await future
        finally:
            self._waiting -= 1

    async def close(self, within: float = 5.0) -> None:
        """Let calls that wait end, for so many seconds."""
        for _ in self._threads:
            self._calls.put(None)
        threads, self._threads = self._threads, []
        await asyncio.gather(*(asyncio.to_thread(thread.join, within) for thread in threads))

    def _start(self) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _carry_out(
    call: Callable[[], Result], future: "asyncio.Future[Result]", loop: asyncio.AbstractEventLoop
) -> None:
    if future.cancelled():
        return
    try:
        result = call()
    except StopIteration as error:  # no future takes one; as in a coroutine it becomes a RuntimeError
        _tell(loop, future, future.set_exception, RuntimeError(f"raised {type(error).__name__}"))
    except BaseException as error:  # it belongs to whoever waits for the call, even a SystemExit
        _tell(loop, future, future.set_exception, error)
    else:
        _tell(loop, future, future.set_result, result)


def _tell(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", setter: Callable[[Any], None], value: Any
) -> None:
    def tell() -> None:
        if not future.done():
            setter(value)

    with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(tell)
