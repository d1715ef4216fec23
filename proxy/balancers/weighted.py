"""Smooth weighted round robin, as in nginx.

Weights 5, 1, 1 give a a b a c a a rather than a a a a a b c: every pick, each
candidate gains its weight, and the richest pays the sum of all weights for the
turn.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint


class Weighted:
    """Shares in the proportion of the weights, spread out evenly."""

    __slots__ = ("_credits", "_seen")
    has_last_word = True

    def __init__(self, chance: Chance) -> None:
        self._credits: dict[str, float] = {}
        self._seen: object = None

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        if candidates is not self._seen:
            self._seen = candidates
            self._credits = {c.name: self._credits.get(c.name, 0.0) for c in candidates}
        credits = self._credits
        total = richest = 0.0
        chosen = candidates[0]
        for candidate in candidates:
            weight = candidate.weight
            total += weight
            credits[candidate.name] = credit = credits[candidate.name] + weight
            if credit > richest:
                chosen, richest = candidate, credit
        credits[chosen.name] -= total
        return chosen
