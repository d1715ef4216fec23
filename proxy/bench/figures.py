"""What a window of answers says, in numbers; and what several windows say together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from statistics import median

from proxy.bench.client import Answer

MS = 1000.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One window. Milliseconds, but for the rates; `cpu` is the gateway's, in seconds."""

    requests: int
    tokens: int
    seconds: float
    cpu: float
    total_p50: float
    total_p99: float
    first_p50: float
    first_p99: float
    jitter_p50: float
    jitter_p99: float

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def cpu_per_request_us(self) -> float:
        return self.cpu / self.requests * 1e6 if self.requests else 0.0

    @property
    def cpu_per_1000_tokens(self) -> float:
        """The part of a core that 1000 tokens/s take, in percent."""
        return self.cpu / self.tokens * 1000 * 100 if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several windows, and how far they lie apart."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = sorted(values)
        return cls(median(found), found[0], found[-1])


def figures(answers: Sequence[Answer], began: float, ended: float, cpu: float) -> Figures:
    """What happened between two moments; a stream that goes on counts with what came of it meanwhile."""
    whole = [answer for answer in answers if began <= answer.ended <= ended]
    totals = [(answer.ended - answer.asked) * MS for answer in whole]
    firsts = [(answer.first_byte - answer.asked) * MS for answer in whole]
    jitters = [jitter * MS for answer in whole for jitter in jitters_of(answer.arrivals)]
    return Figures(
        requests=len(whole),
        tokens=sum(_events_within(answer, began, ended) for answer in answers),
        seconds=ended - began,
        cpu=cpu,
        total_p50=percentile(totals, 50),
        total_p99=percentile(totals, 99),
        first_p50=percentile(firsts, 50),
        first_p99=percentile(firsts, 99),
        jitter_p50=percentile(jitters, 50),
        jitter_p99=percentile(jitters, 99),
    )


def _events_within(answer: Answer, began: float, ended: float) -> int:
    pieces = zip(answer.arrivals, answer.events, strict=True)
    return sum(events for at, events in pieces if began <= at <= ended)


def jitters_of(arrivals: Sequence[float]) -> list[float]:
    """How far the gap before each piece is from this stream's usual gap."""
    gaps = [after - before for before, after in pairwise(arrivals)]
    if not gaps:
        return []
    usual = median(gaps)
    return [abs(gap - usual) for gap in gaps]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]
