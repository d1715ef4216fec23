"""How many extra requests the ordinary ones allow.

Retries and hedges help while failures are few. When everything fails they are
a second load on what is already down, so they may be only a share of the
requests of the last minute, and a handful beside, so that a quiet gateway can
retry as well.
"""

from proxy.health.window import Window

WINDOW_SECONDS = 60.0

# One client's request with its three retries, three times over.
MIN_EXTRAS = 10


class Budget:
    """Counts requests and what was spent beside them."""

    __slots__ = ("_minimum", "_share", "_window")

    def __init__(self, share: float, minimum: int = MIN_EXTRAS) -> None:
        self._share = share
        self._minimum = minimum
        self._window = Window(WINDOW_SECONDS)

    def earn(self, now: float) -> None:
        """An ordinary request began."""
        self._window.count(now, failed=False)

    def spend(self, now: float) -> bool:
        """Take one extra request, or say that there is none left."""
        window = self._window
        window.age(now)
        spent = window.failed
        if spent + 1 > self._minimum + self._share * (window.total - spent):
            return False
        window.count(now, failed=True)
        return True
