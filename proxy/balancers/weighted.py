"""Weighted round robin, spread out evenly: earliest deadline first.

A candidate's turns are 1 / weight apart, and whoever's is the next gets the request.
Their first turns are set off against each other, so that weights 5, 1, 1 give
a b a a a c a rather than a a a a a b c. A heap keeps the order: a pick from a
thousand costs little more than one from ten.
"""

from collections.abc import Sequence
from heapq import heapify, heapreplace

from proxy.balancers.base import C, Chance, Hint

# However many there are, multiples of the golden ratio lie evenly between 0 and 1.
_GOLDEN = 0.6180339887498949


class Weighted:
    """Shares in the proportion of the weights."""

    __slots__ = ("_seen", "_time", "_turns")
    has_last_word = True

    def __init__(self, chance: Chance) -> None:
        self._turns: list[tuple[float, int, str]] = []  # when, which candidate, its name
        self._time = 0.0  # that of the last turn
        self._seen: object = None

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        if candidates is not self._seen:
            self._follow(candidates)
        self._time, at, name = self._turns[0]
        chosen = candidates[at]
        heapreplace(self._turns, (self._time + 1.0 / chosen.weight, at, name))
        return chosen

    def _follow(self, candidates: Sequence[C]) -> None:
        """Others may be picked from now on; who stays keeps the turn that was its next."""
        self._seen = candidates
        known = {name: when for when, _, name in self._turns}
        self._turns = [
            (known.get(one.name, self._time + (at + 1) * _GOLDEN % 1.0 / one.weight), at, one.name)
            for at, one in enumerate(candidates)
        ]
        heapify(self._turns)
