"""Slots for requests that run at the same time.

A slot is held until the stream has ended. How long slots are usually held is
the only honest hint that a refused client can get about when to come back.
"""

# Share of the newest holding time in the average: about the last ten streams count.
WEIGHT = 0.2
# Seconds to wait when nothing is known yet, and the bounds of what is said. openai-python
# ignores a Retry-After above 120 s, and a slot may free up at any moment.
UNKNOWN_WAIT = 1.0
SHORTEST_WAIT = 0.1
LONGEST_WAIT = 60.0


class Slots:
    """At most `limit` slots are open at once; 0 only counts them."""

    __slots__ = ("held", "limit", "open")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = 0
        self.held = 0.0

    def take(self) -> None:
        self.open += 1

    def release(self, held: float) -> None:
        """Give a slot back that was held for `held` seconds."""
        self.open -= 1
        self.held += (held - self.held) * (WEIGHT if self.held else 1.0)

    def wait(self) -> float:
        """About when the next slot frees up."""
        return expected_wait(self.held, self.limit)


def expected_wait(held: float, slots: int) -> float:
    """When one of `slots` frees up if each is held for `held` seconds; 0 is not known yet."""
    if not held or not slots:
        return UNKNOWN_WAIT
    return min(max(held / slots, SHORTEST_WAIT), LONGEST_WAIT)
