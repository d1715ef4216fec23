"""Several keys for one upstream: the one in use gives way when it is refused.

A key that is throttled (429) rests for as long as the answer asks, one that is
not accepted (401) for a minute; both longer each time, and shorter again once
they work. What a request reports counts only for the key it was sent with, so
that ten requests refused together move on by one key and not by ten.
"""

from dataclasses import dataclass

# A rate limit's window is a minute with most providers; a key that was revoked will not come back soon.
THROTTLED_SECONDS = 5.0
REFUSED_SECONDS = 60.0

# A key that somebody has paid for again should be found within the hour.
MAX_REST_SECONDS = 3600.0


@dataclass(slots=True)
class _Key:
    rests_until: float = 0.0
    refusals: int = 0


class KeyRing:
    """Which of `count` keys to use."""

    __slots__ = ("_keys", "current")

    def __init__(self, count: int) -> None:
        self._keys = [_Key() for _ in range(count)]
        self.current = 0

    def worked(self, at: int) -> None:
        """A request with this key was accepted."""
        self._keys[at].refusals = 0

    def refused(self, at: int, status: int, retry_after: float | None, now: float) -> bool:
        """This key was not accepted; return whether another one may be tried at once."""
        key = self._keys[at]
        if key.rests_until <= now:
            rest = THROTTLED_SECONDS if status == 429 else REFUSED_SECONDS
            rest *= 2.0 ** min(key.refusals, 16)
            key.refusals += 1
            key.rests_until = now + min(max(rest, retry_after or 0.0), MAX_REST_SECONDS)
        if at != self.current:
            return self._keys[self.current].rests_until <= now
        # The next one in the ring that is rested, or else the one that will be first.
        others = [(self.current + step) % len(self._keys) for step in range(1, len(self._keys))]
        rested = next((other for other in others if self._keys[other].rests_until <= now), None)
        if rested is not None:
            self.current = rested
            return True
        self.current = min([at, *others], key=lambda other: self._keys[other].rests_until)
        return False
