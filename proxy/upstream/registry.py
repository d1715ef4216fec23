"""The live endpoints, across generations of the configuration.

A new generation claims what it needs and an old one releases what it had; an
endpoint nobody claims any more closes its connections. So a reload that leaves
a backend as it was costs it nothing, and one that changes it keeps what is
known about the server.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from proxy.balancers.base import Balancer
from proxy.health.breaker import BreakerSettings
from proxy.health.thresholds import ThresholdSettings
from proxy.limiters.queue import Queue
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import Changes, Endpoint, EndpointSpec, Vitals

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """What takes an endpoint out and brings it back."""

    breaker: BreakerSettings | None = None
    thresholds: ThresholdSettings = field(default_factory=ThresholdSettings)
    slow_start: float = 0.0


_Key = tuple[str, EndpointSpec, HealthSettings]


class EndpointRegistry:
    """Lends endpoints by pool and spec, so that generations share them."""

    def __init__(self, connect: Callable[[Endpoint], Connections]) -> None:
        self._connect = connect
        self._claims: dict[_Key, list[Endpoint]] = {}
        self._balancers: dict[str, tuple[Hashable, Balancer]] = {}
        self._queues: dict[str, Queue] = {}
        self.changes = Changes()

    def claim(self, pool: str, spec: EndpointSpec, health: HealthSettings) -> Endpoint:
        """The endpoint of that spec: the living one if there is one, else a new one."""
        key = (pool, spec, health)
        held = self._claims.get(key)
        if held:
            held.append(held[0])
            return held[0]
        endpoint = Endpoint(spec, self._vitals(pool, spec, health), self._connect)
        self._claims[key] = [endpoint]
        return endpoint

    def release(self, pool: str, endpoint: Endpoint, health: HealthSettings) -> None:
        """One claim less; the last one closes it. Exchanges that run on it run on."""
        key = (pool, endpoint.spec, health)
        held = self._claims.get(key, [])
        if held:
            held.pop()
        if not held and self._claims.pop(key, None) is not None:
            endpoint.close()

    def balancer(self, pool: str, kind: Hashable, make: Callable[[], Balancer]) -> Balancer:
        """The pool's balancer: what it remembers of sessions outlives a reload that leaves its kind."""
        held = self._balancers.get(pool)
        if held is None or held[0] != kind:
            held = self._balancers[pool] = kind, make()
        return held[1]

    def queue(self, pool: str) -> Queue:
        """The queue in front of the pool: it counts what runs for all generations. To be resized."""
        return self._queues.setdefault(pool, Queue(0, 0))

    def close(self) -> None:
        for held in self._claims.values():
            held[0].close()
        self._claims.clear()

    def __len__(self) -> int:
        return len(self._claims)

    def _vitals(self, pool: str, spec: EndpointSpec, health: HealthSettings) -> Vitals:
        """What is known about this server from a claim that differs, or a clean sheet."""
        fresh = Vitals(
            self.changes,
            breaker=health.breaker,
            thresholds=health.thresholds,
            slow_start=health.slow_start,
        )
        for (other_pool, other_spec, other_health), held in self._claims.items():
            if other_pool == pool and other_spec.address == spec.address:
                known = held[0].vitals
                if other_health == health:
                    return known
                fresh.load = known.load
        return fresh
