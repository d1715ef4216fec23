"""The endpoint that will probably answer first: its latency times the queue before us.

Two are drawn and the better one taken. Whoever always took the best of all would,
together with every other worker that thinks the same, bury it. An endpoint whose
latency is unknown, or has faded, is cheap and so gets tried.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint
from proxy.balancers.load import FAILURE_SECONDS
from proxy.balancers.power_of_two import two_of


class LatencyBased:
    """Peak EWMA over two drawn candidates."""

    __slots__ = ("_chance",)
    has_last_word = False

    def __init__(self, chance: Chance) -> None:
        self._chance = chance

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        if len(candidates) == 1:
            return candidates[0]
        one, other = two_of(candidates, self._chance)
        return one if _cost(one, now) <= _cost(other, now) else other


def _cost(candidate: C, now: float) -> float:
    load = candidate.load
    if not load.in_flight:
        return load.latency_at(now) / candidate.weight
    # While somebody is trying it out it is judged by the last that was seen, not by what has faded:
    # else all that come before the first answer would follow.
    return (load.latency or FAILURE_SECONDS) * (load.in_flight + 1) / candidate.weight
