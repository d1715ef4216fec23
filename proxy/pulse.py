"""The loop's heartbeat: how late its timers come, and what has to be looked at now and then.

A loop that is held up (a long computation, a slow disk behind a blocking call, a
machine that swaps) runs its timers late; nothing else shows that from inside. A
loop that hangs beats no more, and whoever listens for beats from outside notices.
"""

import asyncio
from collections.abc import Callable

# Beats are cheap, and a lag that lasted less is no reason for an alarm.
BEAT_SECONDS = 0.5

# The largest lag of the last one or two such spans is shown: longer than the usual scrape interval.
SPAN_SECONDS = 30.0


class Pulse:
    """Calls each of `on_beat` at every beat; `lag` is the largest delay of late."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_beat: list[Callable[[], None]], every: float = BEAT_SECONDS
    ) -> None:
        self._loop = loop
        self.on_beat = on_beat
        self._every = every
        self._before = self._now = 0.0
        self._span_ends = loop.time() + SPAN_SECONDS
        self._due = loop.time()
        self._timer: asyncio.Handle = loop.call_soon(self._beat)

    @property
    def lag(self) -> float:
        return max(self._before, self._now)

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        if now >= self._span_ends:
            self._before, self._now = self._now, 0.0
            self._span_ends = now + SPAN_SECONDS
        self._now = max(self._now, now - self._due)
        self._due = now + self._every
        self._timer = self._loop.call_later(self._every, self._beat)
        for listen in self.on_beat:
            listen()
