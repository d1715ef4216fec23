"""Requests and failures of the last so many seconds, in four numbers.

Two halves: the current one fills, the one before it still counts, the older
ones are gone. What is seen so reaches back between a half and a whole window,
which is exact enough for a rate and costs nothing to keep.
"""


class Window:
    """Counts over a sliding window."""

    __slots__ = ("_failed", "_failed_before", "_half", "_half_ends", "_total", "_total_before")

    def __init__(self, seconds: float) -> None:
        self._half = seconds / 2
        self.clear()

    def clear(self) -> None:
        self._total = self._failed = self._total_before = self._failed_before = 0
        self._half_ends = 0.0

    def count(self, now: float, *, failed: bool) -> None:
        """Take note of one request."""
        if now >= self._half_ends:
            self.age(now)
        self._total += 1
        if failed:
            self._failed += 1

    def age(self, now: float) -> None:
        """Forget what is too old by now."""
        if now < self._half_ends:
            return
        is_next = now < self._half_ends + self._half
        self._total_before = self._total if is_next else 0
        self._failed_before = self._failed if is_next else 0
        self._total = self._failed = 0
        self._half_ends = now + self._half

    @property
    def total(self) -> int:
        return self._total + self._total_before

    @property
    def failed(self) -> int:
        return self._failed + self._failed_before
