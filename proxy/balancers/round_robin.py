"""One after the other."""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint


class RoundRobin:
    """Ignores weights; starts anywhere, so that many workers don't march in step."""

    __slots__ = ("_turn",)
    has_last_word = True

    def __init__(self, chance: Chance) -> None:
        self._turn = int(chance() * 1024)

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        self._turn += 1
        return candidates[self._turn % len(candidates)]
