"""The endpoint with the fewest requests in flight for its weight.

Ties go round, or an idle pool would send everything to its first endpoint.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint
from proxy.balancers.in_turn import in_turn


class LeastConnections:
    """In flight per weight, the least."""

    __slots__ = ("_turn",)
    has_last_word = False

    def __init__(self, chance: Chance) -> None:
        self._turn = int(chance() * 1024)

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        self._turn += 1
        chosen, least = candidates[0], float("inf")
        for candidate in in_turn(candidates, self._turn):
            score = candidate.load.in_flight / candidate.weight
            if score < least:  # only fewer is better
                chosen, least = candidate, score
                if not score:
                    break
        return chosen
