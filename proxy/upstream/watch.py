"""One ticking look at everything that has a deadline.

A timer per request costs more than the request's own work; a set that is
walked ten times a second costs 60 ns per open thing and tick, and a time-out
that comes a tenth of a second late is still on time for a human and a GPU.
"""

import asyncio
from typing import Protocol

TICK_SECONDS = 0.1


class Watched(Protocol):
    def check(self, now: float) -> None:
        """End yourself if your time is over; `now` is the loop's clock."""


class Watch:
    """Calls `check` on all that was added, ten times a second, while there is anything."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Watched) -> None:
        self._items.add(item)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def discard(self, item: Watched) -> None:
        self._items.discard(item)

    def close(self) -> None:
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._loop.time()
        for item in list(self._items):
            item.check(now)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick) if self._items else None
