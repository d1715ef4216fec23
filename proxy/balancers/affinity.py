"""Keeps a session at its endpoint, whose prefix cache knows it, as long as that is fair.

A session's endpoint follows from its name alone (weighted rendezvous hashing),
so that all workers and hosts agree without talking, and an endpoint that comes
or goes moves only the sessions it gains or loses. One that has more than `bound`
times its share is passed over for the next in the session's order (consistent
hashing with bounded loads, Mirrokni et al., 2016).

Where a session went last is remembered, because that is where its cache is,
whatever its name says. A session that would start cold anyway is put where both
the requests in flight and those of the last minutes are within the bound; one
whose cache is warm moves only where both are beyond it. Simulated
(bench/affinity.py), that costs half of the cold prompts that moving on
requests in flight alone costs, and spreads the work as well.

A conversation that nobody named has no cache before its first answer. Its
first request goes where all others do, and only counts as at home where that
costs nothing.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, log

from proxy.balancers.base import Balancer, C, Candidate, Hint
from proxy.balancers.recent import Recent

# Sessions remembered, about 200 bytes each: a day of a large team. The name alone serves the forgotten.
MAX_SESSIONS = 65_536

# So many may always run at once, whatever the mean: an agent's turn and its title request,
# or two agents on an otherwise idle pool, cost a server nothing and a cold cache seconds.
ALWAYS_ALLOWED = 2

# So few requests of the last minutes say nothing about fairness.
ALWAYS_RECENT = 8.0

# Names of endpoints with their hash; discovery may bring new ones for years.
MAX_SEEDS = 4096

_MASK = (1 << 64) - 1


class Affinity:
    """Sessions by affinity, the rest and the overflow by another balancer."""

    has_last_word = False
    __slots__ = (
        "_bound",
        "_by_name",
        "_max_sessions",
        "_recent",
        "_seeds",
        "_seen",
        "_sessions",
        "_weights",
        "inner",
    )

    def __init__(self, inner: Balancer, *, bound: float = 1.25, max_sessions: int = MAX_SESSIONS) -> None:
        self.inner = inner
        self._bound = bound
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[bytes, str] = OrderedDict()  # least recently seen first
        self._recent = Recent()
        self._seeds: dict[str, int] = {}
        self._seen: object = None
        self._by_name: dict[str, int] = {}
        self._weights = 0.0

    def __len__(self) -> int:
        return len(self._sessions)

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        chosen = self._choose(candidates, hint, now)
        self._recent.add(chosen.name, now)
        return chosen

    def _choose(self, candidates: Sequence[C], hint: Hint, now: float) -> C:
        session = hint.session
        if session is None:
            return self.inner.pick(candidates, hint, now)
        if candidates is not self._seen:
            self._follow(candidates)
        last = self._candidate(candidates, self._sessions.get(session))
        if hint.is_new:
            chosen = self._begin(candidates, last, hint, now)
        elif last is not None and (self._fits_now(last, candidates) or self._fits_lately(last, candidates)):
            self._sessions.move_to_end(session)
            return last
        else:
            chosen = self._place(candidates, hint) or self.inner.pick(candidates, hint, now)
        self._remember(session, chosen.name)
        return chosen

    def _begin(self, candidates: Sequence[C], last: C | None, hint: Hint, now: float) -> C:
        """At home if nobody is less busy, and if requests that look alike may stay together at all."""
        if not self.inner.has_last_word:
            home = last or self._place(candidates, hint)
            if home is not None and _is_least_busy(home, candidates):
                return home
        return self.inner.pick(candidates, hint, now)

    def _place(self, candidates: Sequence[C], hint: Hint) -> C | None:
        """Beside its parent, or else the first in the session's order (in its parent's) with room."""
        name = hint.parent or hint.session
        assert name is not None
        near = self._candidate(candidates, self._sessions.get(name)) if hint.parent else None
        if near is not None and self._fits_now(near, candidates):
            return near
        key = number_of(name)
        ranks = [rank(key, self._seed(candidate.name), candidate.weight) for candidate in candidates]
        for at in sorted(range(len(candidates)), key=ranks.__getitem__):
            if self._has_room(candidates[at], candidates):
                return candidates[at]
        return None

    def _candidate(self, candidates: Sequence[C], name: str | None) -> C | None:
        at = self._by_name.get(name) if name is not None else None
        return None if at is None else candidates[at]

    def _follow(self, candidates: Sequence[C]) -> None:
        """Others may be picked from now on, or the same with other weights."""
        self._seen = candidates
        self._by_name = {candidate.name: at for at, candidate in enumerate(candidates)}
        self._weights = sum(candidate.weight for candidate in candidates)

    def _has_room(self, candidate: C, candidates: Sequence[C]) -> bool:
        return self._fits_now(candidate, candidates) and self._fits_lately(candidate, candidates)

    def _fits_now(self, candidate: C, candidates: Sequence[C]) -> bool:
        """Whether one more in flight is within the bound."""
        in_flight = candidate.load.in_flight
        if in_flight < ALWAYS_ALLOWED:
            return True
        total = sum(other.load.in_flight for other in candidates) + 1
        return in_flight < ceil(self._bound * total * self._share(candidate))

    def _fits_lately(self, candidate: C, candidates: Sequence[C]) -> bool:
        """Whether one more beside those of the last minutes is within the bound."""
        recent = self._recent
        lately = recent.of(candidate.name) + 1.0
        if lately <= ALWAYS_RECENT:
            return True
        total = sum(recent.of(other.name) for other in candidates) + 1.0
        return lately <= self._bound * total * self._share(candidate)

    def _share(self, candidate: Candidate) -> float:
        return candidate.weight / self._weights

    def _remember(self, session: bytes, name: str) -> None:
        sessions = self._sessions
        sessions[session] = name
        sessions.move_to_end(session)
        if len(sessions) > self._max_sessions:
            sessions.popitem(last=False)

    def _seed(self, name: str) -> int:
        seed = self._seeds.get(name)
        if seed is None:
            if len(self._seeds) >= MAX_SEEDS:
                self._seeds.clear()
            seed = self._seeds[name] = number_of(name.encode())
        return seed


def number_of(name: bytes) -> int:
    """64 bits that any process makes of the same name."""
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def rank(key: int, seed: int, weight: float) -> float:
    """A candidate's place in a session's order, smallest first.

    A draw from the exponential distribution with the weight as its rate: of several, each is
    the least in proportion to its weight, and none of them matters to another's.
    """
    mixed = ((key ^ seed) + 0x9E3779B97F4A7C15) & _MASK  # splitmix64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    mixed ^= mixed >> 31
    return -log((mixed + 1) / (_MASK + 2)) / weight


def _is_least_busy(candidate: C, candidates: Sequence[C]) -> bool:
    busy = candidate.load.in_flight / candidate.weight
    return all(busy <= other.load.in_flight / other.weight for other in candidates)
