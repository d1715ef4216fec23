"""Which endpoint takes a request."""

from collections.abc import Callable, Mapping

from proxy.balancers.affinity import Affinity
from proxy.balancers.base import Balancer, Candidate, Chance, Hint
from proxy.balancers.engine_load import EngineLoadBalancer
from proxy.balancers.latency_based import LatencyBased
from proxy.balancers.least_connections import LeastConnections
from proxy.balancers.power_of_two import PowerOfTwo
from proxy.balancers.round_robin import RoundRobin
from proxy.balancers.weighted import Weighted

KINDS: Mapping[str, Callable[[Chance], Balancer]] = {
    "round_robin": RoundRobin,
    "weighted": Weighted,
    "least_connections": LeastConnections,
    "latency_based": LatencyBased,
    "power_of_two": PowerOfTwo,
    "engine_load": EngineLoadBalancer,
}


def make_balancer(kind: str, chance: Chance, *, affinity_bound: float | None) -> Balancer:
    """A balancer of that kind, which keeps sessions together where a bound is given."""
    balancer = KINDS[kind](chance)
    return balancer if affinity_bound is None else Affinity(balancer, bound=affinity_bound)


__all__ = ["KINDS", "Balancer", "Candidate", "Chance", "Hint", "make_balancer"]
