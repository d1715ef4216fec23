"""What the active checks of one endpoint add up to.

One bad answer is not an outage and one good answer is not a recovery: so many
in a row flip the state. An endpoint counts as up until the checks say otherwise,
because a gateway that starts must not refuse what it has not asked about yet.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThresholdSettings:
    """Checks in a row that bring an endpoint back, or take it out."""

    healthy: int = 2
    unhealthy: int = 3


class Thresholds:
    """Counts checks; `is_up` flips after enough of one kind in a row."""

    __slots__ = ("_streak", "is_up", "settings")

    def __init__(self, settings: ThresholdSettings) -> None:
        self.settings = settings
        self.is_up = True
        self._streak = 0  # checks in a row that contradict is_up

    def record(self, good: bool) -> bool:
        """Take one check's result; return whether the state changed."""
        if good is self.is_up:
            self._streak = 0
            return False
        self._streak += 1
        needed = self.settings.healthy if good else self.settings.unhealthy
        if self._streak < needed:
            return False
        self.is_up = good
        self._streak = 0
        return True
