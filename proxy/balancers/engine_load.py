"""The endpoint whose engine says that it has the least to do.

vLLM's own score for its data-parallel ranks: four times what waits plus what
runs. Between two looks our own requests are added to what was seen. Figures
that are too old count as full: an engine that cannot answer a question about
its load is in trouble, or nobody knows.
"""

from collections.abc import Sequence

from proxy.balancers.base import C, Chance, Hint
from proxy.balancers.in_turn import in_turn
from proxy.balancers.least_connections import LeastConnections

# Three looks missed in a row, at the default of one every two seconds.
STALE_SECONDS = 6.0

WAITING_WEIGHT = 4.0


class EngineLoadBalancer:
    """The least score for its weight; where no engine's figures are known, the fewest in flight."""

    __slots__ = ("_blind", "_turn")
    has_last_word = True

    def __init__(self, chance: Chance) -> None:
        self._turn = int(chance() * 1024)
        self._blind = LeastConnections(chance)

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        self._turn += 1
        chosen, least = None, 0.0
        for candidate in in_turn(candidates, self._turn):
            score = score_of(candidate, now)
            if score is not None and (chosen is None or score < least):
                chosen, least = candidate, score
        return chosen if chosen is not None else self._blind.pick(candidates, hint, now)


def score_of(candidate: C, now: float) -> float | None:
    """How full its engine is for its weight, None if nobody knows."""
    load = candidate.load
    engine = load.engine
    if engine is None or now - load.engine_at > STALE_SECONDS:
        return None
    since = load.in_flight - load.engine_in_flight
    return max(WAITING_WEIGHT * engine.waiting + engine.running + since, 0.0) / candidate.weight
