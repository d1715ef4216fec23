"""Token bucket that may go into debt.

A request's true cost in tokens is known only after its stream has ended, so
`reserve` charges what is known up front and `settle` corrects it later. The
correction may push the level below zero; the debt delays the next request.
"""

# Comparisons forgive a hundredth of a unit. After 100 days of uptime one step of a
# monotonic clock in a double is 1.9e-9 s, which at 100 million tokens per minute is
# 0.003 tokens: without slack a caller that waited exactly as told would be refused.
EPSILON = 1e-2


class Bucket:
    """`rate` units flow in per second up to `burst`; times are monotonic seconds."""

    __slots__ = ("burst", "level", "rate", "updated")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self.updated = now

    def reserve(self, cost: float, now: float) -> float:
        """Take `cost` units and return 0.0, or take nothing and return the wait in seconds."""
        wait = self.wait(cost, now)
        if not wait:
            self.level -= cost
        return wait

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `cost` can be taken; 0.0 means now. Takes nothing.

        What is larger than the burst waits for a full bucket and, once taken,
        leaves a debt: otherwise it could never be admitted.
        """
        elapsed = now - self.updated
        if elapsed > 0.0:
            level = self.level + elapsed * self.rate
            self.level = level if level < self.burst else self.burst
            self.updated = now
        missing = (cost if cost < self.burst else self.burst) - self.level
        return missing / self.rate if missing > EPSILON else 0.0

    def take(self, cost: float) -> float:
        """Take `cost` units that `wait` just allowed; the level that is left."""
        self.level = level = self.level - cost
        return level

    def settle(self, correction: float, now: float) -> None:
        """Charge `correction` more units than were reserved; a negative one gives back."""
        self.wait(0.0, now)
        self.level = min(self.level - correction, self.burst)

    def is_full(self, now: float) -> bool:
        """Nothing would be forgotten if this bucket were made anew."""
        return not self.wait(self.burst, now)

    def adopt(self, former: "Bucket", now: float) -> None:
        """Take over from a bucket of another shape: the share left stays, a debt stays whole."""
        former.wait(0.0, now)
        level = former.level
        self.level = level * self.burst / former.burst if level > 0.0 else level
        self.updated = now
