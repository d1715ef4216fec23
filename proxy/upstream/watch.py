"""One ticking look at everything that has a deadline.

A timer per request costs more than the request's own work; a look at what is open
ten times a second costs 200 ns for each thing, and a time-out that comes a tenth of
a second late is still on time for a human and a GPU. Of thousands only a part is
looked at in a tick, at each of them within a second: five thousand streams would
else spend a fifth of their CPU time on it, and wait for it ten times a second.
"""

import asyncio
import logging
from itertools import islice
from typing import Protocol

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
TICKS_PER_SECOND = 10

# So many are looked at in every tick.
LOOKS_PER_TICK = 500


class Watched(Protocol):
    def check(self, now: float) -> None:
        """End yourself if your time is over; `now` is the loop's clock."""


class Watch:
    """Calls `check` on all that was added, ten times a second (once a second on thousands)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: dict[Watched, None] = {}  # where a part is looked at, the last part comes last
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Watched) -> None:
        self._items[item] = None
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def discard(self, item: Watched) -> None:
        self._items.pop(item, None)

    def close(self) -> None:
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._loop.time()
        for item in self._next():
            try:
                item.check(now)
            except Exception:
                # What goes wrong with one must not cost all others their deadlines.
                log.exception("a deadline could not be looked at")
                self.discard(item)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick) if self._items else None

    def _next(self) -> list[Watched]:
        """All, or as many as bring everybody's turn within a second."""
        items = self._items
        looks = max(LOOKS_PER_TICK, len(items) // TICKS_PER_SECOND + 1)
        if len(items) <= looks:
            return list(items)
        chosen = list(islice(items, looks))
        for item in chosen:
            items[item] = items.pop(item)
        return chosen
