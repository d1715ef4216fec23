"""Whether a silent first attempt gets company: a second one elsewhere, before any byte has come.

It trades work for time: a wedged server costs some seconds instead of minutes,
and where nothing is wedged the same prompt is computed twice. So only a small
share of the requests may do it, and none of them twice.
"""

from dataclasses import dataclass

from proxy.health.budget import Budget

# A quiet gateway may hedge one request a minute; a share of few requests would be none at all.
MIN_HEDGES = 1


@dataclass(frozen=True, slots=True)
class HedgeSettings:
    """`after` so many seconds of silence, for at most the share `budget` of all requests."""

    after: float = 10.0
    budget: float = 0.05


class HedgePolicy:
    """One pool's; without settings nothing is hedged."""

    __slots__ = ("_budget", "settings")

    def __init__(self, settings: HedgeSettings | None) -> None:
        self.settings = settings
        self._budget = Budget(settings.budget if settings else 0.0, MIN_HEDGES)

    def began(self, now: float) -> float | None:
        """A request came; returns the seconds of silence after which to ask `may_start`, None for never."""
        if self.settings is None:
            return None
        self._budget.earn(now)
        return self.settings.after

    def may_start(self, now: float) -> bool:
        """Whether a second attempt may start; it is counted as started."""
        return self.settings is not None and self._budget.spend(now)
