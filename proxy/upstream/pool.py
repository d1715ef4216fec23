"""The endpoints that serve the same models, and who gets the next request.

Who may get it is worked out when something changes, not for every request:
most requests find the list as the last one left it.

An endpoint that the active checks call down gets nothing: asked whether it
works, it said no. One that the breaker took out, or that has fallen silent, was
only suspected by what requests met there; if that leaves nobody, suspicion is no reason to refuse and
all that the checks have not condemned are used (Envoy's panic routing).
"""

from collections.abc import Collection, Sequence

from proxy.balancers.base import Balancer, Hint
from proxy.errors import Overloaded
from proxy.health.breaker import State
from proxy.health.outcome import Outcome
from proxy.upstream.endpoint import Changes, Endpoint

# How often an endpoint's growing share is looked at again while it starts slowly.
SLOW_START_STEP_SECONDS = 0.5

# What a refused client is told to wait: a slot may be free at once, a dead server takes some checks.
FULL_RETRY_SECONDS = 1
DOWN_RETRY_SECONDS = 5

_NEVER = float("inf")


class Lease:
    """A claim on an endpoint for one attempt; `finish` it when the answer has ended."""

    __slots__ = ("_finished", "_term", "endpoint")

    def __init__(self, endpoint: Endpoint, term: int) -> None:
        self.endpoint = endpoint
        self._term = term
        self._finished = False

    def answered(self, now: float) -> None:
        """The answer has begun, and well: a server on probation need not wait for the stream's end."""
        vitals = self.endpoint.vitals
        if vitals.breaker.state is not State.CLOSED:
            vitals.cleared(now, term=self._term)

    def finish(self, outcome: Outcome, now: float, first_byte_seconds: float | None = None) -> None:
        """Return the claim and say how it went; only the first call counts."""
        if self._finished:
            return
        self._finished = True
        self.endpoint.vitals.finished(outcome, now, term=self._term, first_byte=first_byte_seconds)


class Pool:
    """Leases endpoints to attempts."""

    def __init__(
        self, name: str, endpoints: Sequence[Endpoint], balancer: Balancer, changes: Changes
    ) -> None:
        self.name = name
        self.balancer = balancer
        self.endpoints: tuple[Endpoint, ...] = tuple(endpoints)
        self._changes = changes
        self._seen = -1
        self._look_again_at = 0.0
        self._usable: Sequence[Endpoint] = ()
        self._has_bounds = False

    @property
    def available(self) -> int:
        """How many endpoints the checks have not condemned and that may get new requests."""
        return len(self._unsuspected(()))

    def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """Serve from these from now on; leases on others stay valid."""
        self.endpoints = tuple(endpoints)
        self._seen = -1

    def has_other(self, exclude: Collection[Endpoint]) -> bool:
        """Whether a lease that excludes these would find somebody."""
        return any(not endpoint.is_full for endpoint in self._unsuspected(exclude))

    def has_responsive(self, now: float, exclude: Collection[Endpoint]) -> bool:
        """Whether somebody who is not suspected of anything would get the request."""
        return any(
            not one.is_full and one.admits(now)
            for one in self.endpoints
            if one.weight > 0 and one not in exclude
        )

    def usable(self, now: float) -> Sequence[Endpoint]:
        """Who may get requests now, each as many as its bound allows."""
        if self._seen != self._changes.count or now >= self._look_again_at:
            self._look_again(now)
        return self._usable

    def lease(self, hint: Hint, now: float, exclude: Collection[Endpoint] = ()) -> Lease:
        """Claim the best endpoint that is not excluded, or raise Overloaded."""
        usable = self.usable(now)
        if exclude:
            usable = [one for one in usable if one not in exclude] or self._unsuspected(exclude)
        endpoint = self._pick(usable, hint, now)
        if self._has_bounds and endpoint.is_full:
            endpoint = self._pick([one for one in usable if not one.is_full], hint, now)
        vitals = endpoint.vitals
        vitals.load.begin()
        breaker = vitals.breaker
        if breaker.state is not State.CLOSED:
            self._changes.count += 1  # one probe less may be sent
        return Lease(endpoint, breaker.begin())

    def _pick(self, usable: Sequence[Endpoint], hint: Hint, now: float) -> Endpoint:
        if len(usable) > 1:
            return self.balancer.pick(usable, hint, now)
        if not usable:
            raise self._refusal()
        return usable[0]

    def _look_again(self, now: float) -> None:
        """Work out who may get requests, and when that may change without anybody saying so."""
        self._look_again_at = _NEVER
        usable = []
        for endpoint in self.endpoints:
            if endpoint.settle_weight(now):
                self._look_again_at = min(self._look_again_at, now + SLOW_START_STEP_SECONDS)
            if endpoint.weight > 0 and endpoint.admits(now):
                usable.append(endpoint)
            breaker = endpoint.vitals.breaker
            if breaker.state is not State.CLOSED:
                self._look_again_at = min(self._look_again_at, breaker.retry_at)
        self._usable = tuple(usable) or self._unsuspected(())
        self._has_bounds = any(endpoint.max_in_flight is not None for endpoint in self._usable)
        self._seen = self._changes.count

    def _unsuspected(self, exclude: Collection[Endpoint]) -> Sequence[Endpoint]:
        """All that the checks have not condemned, whatever else they are suspected of."""
        return tuple(e for e in self.endpoints if e.is_up and e.weight > 0 and e not in exclude)

    def _refusal(self) -> Overloaded:
        if any(endpoint.is_up and endpoint.is_full for endpoint in self.endpoints):
            return _overloaded("All upstream servers are busy.", FULL_RETRY_SECONDS)
        return _overloaded("No upstream server is available.", DOWN_RETRY_SECONDS)


def _overloaded(message: str, seconds: int) -> Overloaded:
    return Overloaded(message, headers={"Retry-After": str(seconds), "retry-after-ms": str(seconds * 1000)})


__all__ = ["Endpoint", "Hint", "Lease", "Outcome", "Pool"]
