"""Of two drawn endpoints, the one with fewer requests in flight for its weight.

Nearly as even as looking at all (Mitzenmacher, 2001), and without the stampede
to the one that looked best to everybody at once.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint


class PowerOfTwo:
    """Two choices, the less busy one."""

    __slots__ = ("_chance",)
    has_last_word = False

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        if len(candidates) == 1:
            return candidates[0]
        one, other = two_of(candidates, self._chance)
        return one if one.load.in_flight * other.weight <= other.load.in_flight * one.weight else other


def two_of(candidates: Sequence[C], chance: Chance) -> tuple[C, C]:
    """Two different candidates, each as likely as the next."""
    count = len(candidates)
    first = int(chance() * count)
    second = int(chance() * (count - 1))
    if second >= first:
        second += 1
    return candidates[first], candidates[second]
