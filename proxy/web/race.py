"""Two attempts side by side, while neither has spoken: the first to speak is heard.

The second one starts only after a silence, and only while nothing has gone to
the client. Whoever begins an answer that is not declined wins, and the other is
closed; one that fails leaves the race to the other.
"""

import asyncio
from collections.abc import Callable

from proxy.web.attempt import Attempt


class Race:
    """The attempts of one race; returns the winner from `run`, or else the last to fail."""

    def __init__(self, first: Attempt) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self._winner: Attempt | None = None
        self._first = self._last = first

    async def run(self, after: float, company: Callable[[Attempt], Attempt | None]) -> Attempt:
        """Give the first one what `company` makes, once it was silent for `after` seconds."""
        first = self._first
        try:
            self._start(first)
            done, _ = await asyncio.wait(self._running, timeout=after)
            if not done and self._winner is None and (second := company(first)) is not None:
                self._start(second)
            await asyncio.wait(self._running)
        finally:
            for task in self._running:
                task.cancel()
            ended = await asyncio.gather(*self._running, return_exceptions=True)
            for attempt in self._running.values():
                attempt.let_go()
        for error in ended:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                raise error
        return self._winner or self._last

    def wins(self, attempt: Attempt) -> bool:
        """Whether this one is the first that could begin an answer; the other ends at once."""
        if self._winner is None:
            self._winner = attempt
            for task, other in self._running.items():
                if other is not attempt:
                    other.is_outrun = True
                    task.cancel()
        return self._winner is attempt

    def _start(self, attempt: Attempt) -> None:
        attempt.wins = self.wins
        self._running[self._loop.create_task(self._run(attempt))] = attempt

    async def _run(self, attempt: Attempt) -> None:
        await attempt.run()
        self._last = attempt
