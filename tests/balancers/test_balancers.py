"""What every balancer must do, and what each of them promises."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balancers import KINDS, Hint
from proxy.balancers.in_turn import MAX_LOOKS, in_turn
from proxy.balancers.latency_based import LatencyBased
from proxy.balancers.least_connections import LeastConnections
from proxy.balancers.load import Load
from proxy.balancers.power_of_two import PowerOfTwo, two_of
from proxy.balancers.round_robin import RoundRobin
from proxy.balancers.weighted import Weighted

NOBODY = Hint()


class Server:
    def __init__(self, name: str, weight: float = 1.0, in_flight: int = 0, latency: float = 0.0) -> None:
        self.name = name
        self.weight = weight
        self.load = Load()
        self.load.in_flight = in_flight
        if latency:
            self.load.measure(latency, 0.0)


def servers(*weights: float) -> tuple[Server, ...]:
    return tuple(Server("abcdefghijklmnop"[at], weight) for at, weight in enumerate(weights))


def servers_named(count: int) -> list[Server]:
    return [Server(f"s{number}") for number in range(count)]


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(
    weights=st.lists(st.floats(0.01, 1000.0), min_size=1, max_size=8),
    busy=st.lists(st.integers(0, 50), min_size=8, max_size=8),
    seed=st.integers(),
)
def test_picks_one_of_the_candidates(kind: str, weights: list[float], busy: list[int], seed: int) -> None:
    candidates = servers(*weights)
    for candidate, in_flight in zip(candidates, busy, strict=False):
        candidate.load.in_flight = in_flight
    balancer = KINDS[kind](Random(seed).random)

    for now in range(20):
        assert balancer.pick(candidates, NOBODY, float(now)) in candidates


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_uses_all_equal_and_idle_endpoints(kind: str) -> None:
    balancer = KINDS[kind](Random(7).random)
    candidates = servers(1, 1, 1, 1)

    picked = Counter(balancer.pick(candidates, NOBODY, 0.0).name for _ in range(400))

    assert set(picked) == set("abcd")
    assert min(picked.values()) >= 70


def test_round_robin_takes_turns() -> None:
    balancer, candidates = RoundRobin(Random(1).random), servers(9, 1, 1)

    names = [balancer.pick(candidates, NOBODY, 0.0).name for _ in range(9)]

    assert names[:3] == names[3:6] == names[6:]
    assert sorted(names[:3]) == ["a", "b", "c"]


def test_weighted_spreads_turns_evenly() -> None:
    balancer, candidates = Weighted(Random(1).random), servers(5, 1, 1)

    names = "".join(balancer.pick(candidates, NOBODY, 0.0).name for _ in range(14))

    assert names == "abaaaca" * 2


@pytest.mark.parametrize("kind", ["weighted", "least_connections", "engine_load", "round_robin"])
def test_of_a_large_pool_everybody_gets_a_turn(kind: str) -> None:
    balancer, candidates = KINDS[kind](Random(1).random), tuple(servers_named(1000))

    picked = Counter(balancer.pick(candidates, NOBODY, 0.0).name for _ in range(2000))

    assert set(picked.values()) == {2}


def test_least_connections_fills_a_large_pool_evenly() -> None:
    balancer, candidates = LeastConnections(Random(3).random), tuple(servers_named(500))
    for candidate in candidates[::5]:
        candidate.load.in_flight = 8

    for _ in range(4 * 500):
        balancer.pick(candidates, NOBODY, 0.0).load.begin()

    in_flight = [candidate.load.in_flight for candidate in candidates]
    assert sum(in_flight) == 4 * 500 + 8 * 100
    assert max(in_flight) == 8
    assert min(in_flight) >= 4


@pytest.mark.parametrize("kind", ["weighted", "least_connections", "engine_load"])
def test_a_pick_looks_at_a_part_of_a_large_pool(kind: str) -> None:
    looked: Counter[str] = Counter()

    class Watched(Server):
        def __getattribute__(self, name: str) -> object:
            if name == "load":
                looked[object.__getattribute__(self, "name")] += 1
            return object.__getattribute__(self, name)

    candidates = tuple(Watched(f"s{n}", in_flight=1) for n in range(1000))
    balancer = KINDS[kind](Random(1).random)
    balancer.pick(candidates, NOBODY, 0.0)
    looked.clear()

    balancer.pick(candidates, NOBODY, 0.0)

    assert len(looked) <= 2 * MAX_LOOKS  # once for the engines' figures, once for our own


@given(st.integers(1, 200), st.integers(0, 1000))
def test_in_turn_begins_with_another_each_time(count: int, turn: int) -> None:
    seen = in_turn(tuple(servers_named(count)), turn)

    assert [candidate.name for candidate in seen] == [
        f"s{at % count}" for at in range(turn, turn + min(count, MAX_LOOKS))
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_weighted_gives_everyone_exactly_their_share(weights: list[int], rounds: int) -> None:
    balancer, candidates = Weighted(Random(1).random), servers(*weights)

    picked = Counter(balancer.pick(candidates, NOBODY, 0.0).name for _ in range(sum(weights) * rounds))

    assert picked == {c.name: c.weight * rounds for c in candidates}


def test_weighted_goes_on_smoothly_when_an_endpoint_leaves_and_returns() -> None:
    balancer = Weighted(Random(1).random)
    everyone = servers(1, 1, 1)
    for _ in range(4):
        balancer.pick(everyone, NOBODY, 0.0)

    while_gone = Counter(balancer.pick(everyone[:2], NOBODY, 0.0).name for _ in range(100))
    after = Counter(balancer.pick(everyone, NOBODY, 0.0).name for _ in range(300))

    assert abs(while_gone["a"] - while_gone["b"]) <= 2
    assert max(after.values()) - min(after.values()) <= 2


@pytest.mark.parametrize("make", [LeastConnections, PowerOfTwo])
def test_fewer_in_flight_wins(make: type[LeastConnections] | type[PowerOfTwo]) -> None:
    balancer = make(Random(1).random)
    candidates = (Server("busy", in_flight=2), Server("calm", in_flight=1))

    assert {balancer.pick(candidates, NOBODY, 0.0).name for _ in range(20)} == {"calm"}


@pytest.mark.parametrize("make", [LeastConnections, PowerOfTwo])
def test_in_flight_counts_by_weight(make: type[LeastConnections] | type[PowerOfTwo]) -> None:
    balancer = make(Random(1).random)
    candidates = (Server("big", weight=4, in_flight=7), Server("small", weight=1, in_flight=2))

    assert {balancer.pick(candidates, NOBODY, 0.0).name for _ in range(20)} == {"big"}


def test_least_connections_fills_up_evenly() -> None:
    balancer, candidates = LeastConnections(Random(3).random), servers(*[1.0] * 7)

    for _ in range(70):
        balancer.pick(candidates, NOBODY, 0.0).load.begin()

    assert {candidate.load.in_flight for candidate in candidates} == {10}


def test_two_of_draws_every_pair_alike() -> None:
    chance, candidates = Random(5).random, servers(1, 1, 1)

    pairs = Counter("".join(c.name for c in two_of(candidates, chance)) for _ in range(6000))

    assert set(pairs) == {"ab", "ac", "ba", "bc", "ca", "cb"}
    assert min(pairs.values()) > 850


def test_latency_based_prefers_the_faster() -> None:
    balancer = LatencyBased(Random(1).random)
    candidates = (Server("slow", latency=2.0), Server("fast", latency=0.1))

    assert {balancer.pick(candidates, NOBODY, 0.0).name for _ in range(20)} == {"fast"}


def test_latency_based_does_not_bury_the_fastest() -> None:
    balancer = LatencyBased(Random(1).random)
    candidates = (Server("slow", latency=0.4), Server("fast", latency=0.1))

    for _ in range(50):
        balancer.pick(candidates, NOBODY, 0.0).load.begin()

    slow, fast = (candidate.load.in_flight for candidate in candidates)
    assert fast == pytest.approx(4 * slow, rel=0.2)


def test_latency_based_tries_a_slow_endpoint_again_after_a_while() -> None:
    balancer = LatencyBased(Random(1).random)
    slow, fast = Server("slow", latency=2.0), Server("fast", latency=0.1)
    fast.load.measure(0.1, 200.0)

    assert balancer.pick((slow, fast), NOBODY, 200.0) is slow


def test_latency_based_sends_one_not_all_to_an_endpoint_it_does_not_know() -> None:
    balancer = LatencyBased(Random(1).random)
    new, known = Server("new"), Server("known", latency=0.2)

    picked = []
    for _ in range(10):
        chosen = balancer.pick((new, known), NOBODY, 0.0)
        chosen.load.begin()
        picked.append(chosen.name)

    assert picked.count("new") == 1


def test_an_endpoint_that_fails_fast_is_not_the_fastest() -> None:
    balancer = LatencyBased(Random(1).random)
    broken, healthy = Server("broken", latency=0.01), Server("healthy", latency=3.0)
    broken.load.fail(1.0)
    healthy.load.measure(3.0, 1.0)

    assert {balancer.pick((broken, healthy), NOBODY, 1.0).name for _ in range(20)} == {"healthy"}
