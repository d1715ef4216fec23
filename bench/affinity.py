"""Replays agents' sessions over a pool of engines with prefix caches, once for each balancer.

    python bench/affinity.py [--sessions 600] [--endpoints 12] [--seeds 5]

No network and no clock: sessions, engines and time are simulated, the balancers
are those of the product. A session is a growing conversation: every turn sends
all that came before, and the engine only computes what its cache does not hold.
What is asked: which part of the prompt tokens came from a cache, and how much
more than the mean the busiest endpoint had to do.
"""

import argparse
import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import mean, quantiles

from proxy.balancers import KINDS, Hint
from proxy.balancers.affinity import Affinity
from proxy.balancers.base import Balancer
from proxy.balancers.load import EngineLoad, Load

# One agent's system prompt with its tools: OpenCode sends 31 kB, Claude Code 77 kB at turn 1.
SYSTEM_PROMPTS = (8_000, 20_000, 18_000)
# An 80 GB card beside a 30B model in 8 bit holds about this many tokens of cache.
CACHE_TOKENS = 1_000_000
PREFILL_TOKENS_PER_SECOND = 8_000.0
DECODE_TOKENS_PER_SECOND = 70.0
# Decoding slows down as the batch grows: at this many running requests, to half.
HALF_SPEED_AT = 32
SCRAPE_SECONDS = 2.0


@dataclass(slots=True)
class Session:
    """One conversation, or a sub-agent's part of one."""

    name: bytes
    agent: int
    turns: int
    tokens: int
    chance: Random  # its own, so that every balancer meets the same sessions
    parent: bytes | None = None
    is_new: bool = True


@dataclass(slots=True, eq=False)
class Engine:
    """One endpoint: a prefix cache, and requests that share its speed."""

    name: str
    weight: float = 1.0
    load: Load = field(default_factory=Load)
    cached: OrderedDict[object, int] = field(default_factory=OrderedDict)
    cached_tokens: int = 0
    busy_until: float = 0.0
    requests: int = 0
    busy_seconds: float = 0.0
    prompt_tokens: int = 0
    hit_tokens: int = 0

    def serve(self, session: Session, answer: int, now: float) -> tuple[float, float]:
        """Take a request; returns the seconds to its first and to its last token."""
        hit = max(self.cached.get(session.name, 0), self.cached.get(session.agent, 0))
        cold = session.tokens - hit
        self.prompt_tokens += session.tokens
        self.hit_tokens += hit
        prefill = cold / PREFILL_TOKENS_PER_SECOND
        # Prefills queue behind one another; what decodes meanwhile slows down together.
        begins = max(self.busy_until, now)
        self.busy_until = begins + prefill
        first = begins + prefill - now + 0.02
        decode = answer / DECODE_TOKENS_PER_SECOND * (1 + self.load.in_flight / HALF_SPEED_AT)
        self.requests += 1
        self.busy_seconds += prefill + answer / DECODE_TOKENS_PER_SECOND / 8
        self._keep(session.agent, SYSTEM_PROMPTS[session.agent])
        self._keep(session.name, session.tokens + answer)
        return first, first + decode

    def _keep(self, what: object, tokens: int) -> None:
        self.cached_tokens += tokens - self.cached.pop(what, 0)
        self.cached[what] = tokens
        while self.cached_tokens > CACHE_TOKENS:
            _, dropped = self.cached.popitem(last=False)
            self.cached_tokens -= dropped


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    hit_rate: float
    worst_requests: float
    worst_work: float
    worst_in_flight: float
    first_median: float
    first_p95: float


class Replay:
    """One run: the same sessions for every balancer that is given the same seed."""

    def __init__(self, balancer: Balancer, *, sessions: int, endpoints: int, seed: int, hint: str) -> None:
        self._balancer = balancer
        self._engines = [Engine(f"10.0.0.{n}:8000") for n in range(1, endpoints + 1)]
        self._seed = seed
        self._hint = hint
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0
        self._sessions = sessions
        self._firsts: list[float] = []
        self._peaks: list[float] = []

    def run(self, name: str) -> Result:
        at, chance = 0.0, Random(self._seed)
        for number in range(self._sessions):
            at += chance.expovariate(self._sessions / 1800.0)
            self._at(at, self._begin, number)
        self._at(0.0, self._scrape)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return self._result(name)

    def _at(self, when: float, what: Callable[..., None], *args: object) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, lambda now: what(now, *args)))

    def _begin(self, now: float, number: int) -> None:
        chance = Random(f"{self._seed}/{number}")
        agent = chance.randrange(len(SYSTEM_PROMPTS))
        turns = max(2, int(chance.lognormvariate(2.8, 0.7)))
        tokens = SYSTEM_PROMPTS[agent] + int(chance.lognormvariate(6.0, 1.0))
        self._turn(now, Session(b"session-%d" % number, agent, turns, tokens, chance))

    def _turn(self, now: float, session: Session) -> None:
        chance = session.chance
        answer = int(chance.lognormvariate(5.3, 0.9)) + 1
        tool_result = int(chance.lognormvariate(6.5, 1.2))
        pause = chance.lognormvariate(0.7, 1.0) if chance.random() < 0.9 else chance.expovariate(1 / 60.0)
        with_child = session.parent is None and chance.random() < 0.04
        child_turns, child_tokens = chance.randint(3, 12), int(chance.lognormvariate(6.0, 1.0))

        engine = self._balancer.pick(self._engines, self._hint_for(session), now)
        session.is_new = False
        first, last = engine.serve(session, answer, now)
        engine.load.begin()
        self._firsts.append(first)
        in_flight = [e.load.in_flight for e in self._engines]
        self._peaks.append(max(in_flight) / max(mean(in_flight), 1.0))
        self._at(now + first, lambda when: engine.load.measure(first, when))
        self._at(now + last, lambda when: engine.load.end())

        session.tokens += answer + tool_result
        session.turns -= 1
        if with_child:
            name = session.name + b"/%d" % session.turns
            tokens = SYSTEM_PROMPTS[session.agent] + child_tokens
            child = Session(name, session.agent, child_turns, tokens, Random(chance.random()), session.name)
            self._at(now + last, self._turn, child)
        if session.turns > 0:
            self._at(now + last + pause, self._turn, session)

    def _hint_for(self, session: Session) -> Hint:
        if self._hint == "none":
            return Hint()
        if self._hint == "prompt":  # what hashing the first bytes of the messages comes to
            return Hint(b"agent-%d" % session.agent)
        if self._hint == "message":  # the first user message: no word of a parent
            return Hint(session.name, is_new=session.is_new)
        return Hint(session.name, session.parent)

    def _scrape(self, now: float) -> None:
        for engine in self._engines:
            running = min(engine.load.in_flight, 256)
            engine.load.saw(EngineLoad(running, engine.load.in_flight - running), now)
        if self._events:
            self._at(now + SCRAPE_SECONDS, self._scrape)

    def _result(self, name: str) -> Result:
        engines = self._engines
        return Result(
            name,
            sum(e.hit_tokens for e in engines) / sum(e.prompt_tokens for e in engines),
            _worst([e.requests for e in engines]),
            _worst([e.busy_seconds for e in engines]),
            quantiles(self._peaks, n=20)[-1],
            quantiles(self._firsts, n=2)[0],
            quantiles(self._firsts, n=20)[-1],
        )


def _worst(values: Sequence[float]) -> float:
    return max(values) / mean(values)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a balancer, and what it is told of a request."""

    label: str
    hint: str
    make: Callable[[Callable[[], float]], Balancer]


def rows() -> list[Row]:
    def sticky(bound: float) -> Callable[[Callable[[], float]], Balancer]:
        return lambda chance: Affinity(KINDS["least_connections"](chance), bound=bound)

    return [
        *(Row(f"`{kind}`", "none", make) for kind, make in KINDS.items()),
        Row("affinity by session header", "session", sticky(1.25)),
        Row("affinity by first user message", "message", sticky(1.25)),
        Row("the same by header, without a bound", "session", sticky(1e9)),
        Row("hash of the first 512 bytes of `messages`, bounded", "prompt", sticky(1.25)),
    ]


def replay(row: Row, *, sessions: int, endpoints: int, seed: int) -> Result:
    balancer = row.make(Random(seed).random)
    return Replay(balancer, sessions=sessions, endpoints=endpoints, seed=seed, hint=row.hint).run(row.label)


def line(results: Sequence[Result]) -> str:
    """A row of the table: what is good on the average of all seeds, what is bad at its worst."""
    return (
        f"| {results[0].name} | {mean(r.hit_rate for r in results):.1%}"
        f" | {max(r.worst_requests for r in results):.2f} | {max(r.worst_work for r in results):.2f}"
        f" | {max(r.worst_in_flight for r in results):.2f}"
        f" | {mean(r.first_median for r in results):.2f} s | {mean(r.first_p95 for r in results):.2f} s |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for option, default in (("--sessions", 600), ("--endpoints", 12), ("--seeds", 5)):
        parser.add_argument(option, type=int, default=default)
    given = parser.parse_args()
    print(
        "| balancer | prompt tokens from cache | busiest endpoint: requests | work | in flight, p95", end=""
    )
    print(" | first token, median | p95 |\n|---|---|---|---|---|---|---|")
    for row in rows():
        seeds = range(1, given.seeds + 1)
        print(line([replay(row, sessions=given.sessions, endpoints=given.endpoints, seed=s) for s in seeds]))


if __name__ == "__main__":
    main()
