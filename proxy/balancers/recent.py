"""How many requests each endpoint got lately, old ones counting less and less.

Instead of letting all counts shrink with time, each new request counts for more
than the one before it, and what is read is divided by what one counts now.
"""

from math import exp

# A coding agent's turns are seconds to a minute apart, so that two minutes see every session that is at work.
DECAY_SECONDS = 120.0

# Long before a float overflows (e^709) everything is brought back to a scale of one.
MAX_EXPONENT = 100.0


class Recent:
    """Decaying counts by name."""

    __slots__ = ("_counts", "_one", "_start")

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._start = 0.0
        self._one = 1.0  # what a request counts now

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, name: str, now: float) -> None:
        exponent = (now - self._start) / DECAY_SECONDS
        if exponent > MAX_EXPONENT:
            self._rescale(now)
            exponent = 0.0
        self._one = one = exp(exponent)
        self._counts[name] = self._counts.get(name, 0.0) + one

    def of(self, name: str) -> float:
        """Requests lately, as of the last one that was added."""
        return self._counts.get(name, 0.0) / self._one

    def _rescale(self, now: float) -> None:
        """Start again from what still counts; names that have long been gone go."""
        fade = exp(max((self._start - now) / DECAY_SECONDS, -700.0))
        faded = {name: count * fade for name, count in self._counts.items()}
        self._counts = {name: count for name, count in faded.items() if count > 0.01}
        self._start = now
