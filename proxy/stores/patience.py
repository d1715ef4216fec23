"""A time-out that does not take this process's own slowness for the other side's.

In a busy process a timer is late, and is then heard before the answer that has
come meanwhile. So the span is waited for in steps: between two of them the loop
looks at its sockets, and an answer that is there ends the wait.
"""

import asyncio
from types import TracebackType

# An answer needs about three turns of the loop from its socket to whoever awaits it.
STEPS = 10


class Patience:
    """`async with Patience(seconds)`: raises TimeoutError like asyncio.timeout, in a busy loop later."""

    __slots__ = ("_left", "_loop", "_step", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._step = seconds / STEPS
        self._left = STEPS
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._step, self._tick)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._step, self._tick)
        else:
            self._timeout.reschedule(self._loop.time())
