"""A quota: so much per period, counted from midnight UTC.

What is stored is the use and when it was last set to 0. Nothing has to run at
midnight: a use that was counted before the current period began is no use now.

A clock may be set. Where it goes back by less than a period, nothing is given
twice. A use that was counted further ahead, while the clock was wrong, is no use
either, or a spent quota would stay spent until that day.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

Unit = Literal["tokens", "requests"]
Period = Literal["never", "daily", "weekly", "monthly"]


@dataclass(frozen=True, slots=True)
class Quota:
    """`total` units per period; `used` counts from `last_reset_at`, None meaning since ever."""

    total: int
    used: int = 0
    unit: Unit = "tokens"
    period: Period = "never"
    last_reset_at: float | None = None

    def used_at(self, now: float) -> int:
        return 0 if self.is_due(now) else self.used

    def is_due(self, now: float) -> bool:
        """Whether a period has begun since the use was last set to 0."""
        start = period_start(self.period, now)
        if start is None or self.last_reset_at is None:
            return start is not None
        end = next_period_start(self.period, now)
        return self.last_reset_at < start or (end is not None and self.last_reset_at > end)

    def debited(self, amount: int, now: float) -> "Quota":
        """The quota after `amount` more, in the period that `now` lies in."""
        if self.is_due(now):
            return replace(self, used=amount, last_reset_at=period_start(self.period, now))
        return replace(self, used=self.used + amount)


def period_start(period: Period, now: float) -> float | None:
    """The UTC midnight, Monday's midnight or first of the month that `now` comes after; None: never."""
    if period == "never":
        return None
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "weekly":
        day -= timedelta(days=day.weekday())
    elif period == "monthly":
        day = day.replace(day=1)
    return day.timestamp()


def next_period_start(period: Period, now: float) -> float | None:
    """Where the period after that of `now` begins; None: never."""
    start = period_start(period, now)
    return None if start is None else period_start(period, start + _LONGEST[period])


# Seconds. From the beginning of the shortest month, too, this leads into the next one and no further.
_LONGEST: dict[Period, float] = {"daily": 86_400, "weekly": 7 * 86_400, "monthly": 31 * 86_400}
