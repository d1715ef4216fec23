"""The engine's own word about its load, as long as it is fresh."""

from collections import Counter
from random import Random

import pytest

from proxy.balancers import Hint
from proxy.balancers.engine_load import STALE_SECONDS, EngineLoadBalancer, score_of
from proxy.balancers.load import EngineLoad, Load

NOBODY = Hint()


class Server:
    def __init__(
        self, name: str, running: float | None = None, waiting: float = 0, weight: float = 1
    ) -> None:
        self.name = name
        self.weight = weight
        self.load = Load()
        if running is not None:
            self.load.saw(EngineLoad(running, waiting), 100.0)


def picked(*servers: Server, now: float = 101.0) -> set[str]:
    balancer = EngineLoadBalancer(Random(1).random)
    return {balancer.pick(servers, NOBODY, now).name for _ in range(20)}


def test_waiting_weighs_four_times_running() -> None:
    assert picked(Server("queue", running=1, waiting=2), Server("busy", running=8)) == {"busy"}
    assert picked(Server("queue", running=1, waiting=2), Server("busy", running=10)) == {"queue"}


def test_ties_go_round() -> None:
    assert picked(Server("a", running=3), Server("b", running=3)) == {"a", "b"}


def test_the_weight_is_the_size() -> None:
    assert picked(Server("big", running=30, weight=4), Server("small", running=10)) == {"big"}


def test_our_own_requests_count_until_the_next_look() -> None:
    balancer, servers = EngineLoadBalancer(Random(1).random), (Server("a", running=3), Server("b", running=0))

    for _ in range(13):
        balancer.pick(servers, NOBODY, 101.0).load.begin()

    assert [server.load.in_flight for server in servers] == [5, 8]


def test_figures_that_are_too_old_count_as_full() -> None:
    stale, fresh = Server("stale", running=0), Server("fresh", running=50, waiting=50)
    later = 100.0 + STALE_SECONDS + 0.1
    fresh.load.saw(EngineLoad(50, 50), later)

    assert picked(stale, fresh, now=later) == {"fresh"}
    assert score_of(stale, later) is None


def test_an_engine_without_figures_is_left_out_while_others_have_some() -> None:
    assert picked(Server("unknown"), Server("known", running=9)) == {"known"}


def test_where_nothing_is_known_the_fewest_in_flight_wins() -> None:
    balancer, servers = EngineLoadBalancer(Random(1).random), (Server("a"), Server("b"))

    counts: Counter[str] = Counter()
    for _ in range(10):
        chosen = balancer.pick(servers, NOBODY, 0.0)
        chosen.load.begin()
        counts[chosen.name] += 1

    assert counts == {"a": 5, "b": 5}


@pytest.mark.parametrize(("ended", "score"), [(0, 9.0), (3, 6.0), (20, 0.0)])
def test_requests_that_ended_since_are_taken_off(ended: int, score: float) -> None:
    server = Server("a")
    server.load.in_flight = 20
    server.load.saw(EngineLoad(5, 1), 100.0)
    server.load.in_flight -= ended

    assert score_of(server, 101.0) == score
