"""The endpoint with the fewest requests in flight for its weight.

Ties go round, or an idle pool would send everything to its first endpoint.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint


class LeastConnections:
    """In flight per weight, the least."""

    __slots__ = ("_turn",)
    has_last_word = False

    def __init__(self, chance: Chance) -> None:
        self._turn = int(chance() * 1024)

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        self._turn += 1
        at = self._turn % len(candidates)
        chosen = candidates[at]
        least = chosen.load.in_flight / chosen.weight
        # Those after the starting point first, then those before it: only fewer is better.
        for candidate in candidates[at + 1 :]:
            score = candidate.load.in_flight / candidate.weight
            if score < least:
                chosen, least = candidate, score
        for candidate in candidates[:at]:
            score = candidate.load.in_flight / candidate.weight
            if score < least:
                chosen, least = candidate, score
        return chosen
