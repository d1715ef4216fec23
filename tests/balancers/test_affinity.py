"""Sessions stay where their cache is, fairly, and move only when they must."""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balancers import KINDS, Hint, make_balancer
from proxy.balancers.affinity import ALWAYS_ALLOWED, ALWAYS_RECENT, MAX_SEEDS, Affinity, number_of, rank
from proxy.balancers.load import Load
from proxy.balancers.recent import DECAY_SECONDS
from proxy.balancers.weighted import Weighted

ROOT = Path(__file__).parents[2]


class Server:
    def __init__(self, name: str, weight: float = 1.0) -> None:
        self.name = name
        self.weight = weight
        self.load = Load()


def servers(count: int) -> tuple[Server, ...]:
    return tuple(Server(f"10.0.0.{n}:8000") for n in range(1, count + 1))


def affinity(kind: str = "least_connections", **options: float) -> Affinity:
    return Affinity(KINDS[kind](Random(1).random), **options)


def session(number: int) -> Hint:
    return Hint(b"session-%d" % number)


def homes(balancer: Affinity, candidates: tuple[Server, ...], count: int, now: float = 0.0) -> list[str]:
    return [balancer.pick(candidates, session(n), now).name for n in range(count)]


def test_a_session_stays_at_its_endpoint() -> None:
    balancer, candidates = affinity(), servers(12)

    turns = [homes(balancer, candidates, 100, float(now)) for now in range(0, 600, 30)]

    assert all(turn == turns[0] for turn in turns)
    assert set(turns[0]) == {server.name for server in candidates}


def test_a_lone_session_stays_however_much_it_asks() -> None:
    balancer, candidates = affinity(), servers(3)

    assert len({balancer.pick(candidates, session(1), n / 10).name for n in range(1000)}) == 1


def test_processes_that_never_talked_agree() -> None:
    program = (
        "from proxy.balancers.affinity import number_of, rank\n"
        "print([min('abcdefg', key=lambda n: rank(number_of(b'%d' % s), number_of(n.encode()), 1.0))"
        " for s in range(20)])"
    )

    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(seen) == 1


def test_an_endpoint_that_comes_takes_only_what_becomes_its_own() -> None:
    many = 2000
    before = [home_of(b"%d" % n, servers(9)) for n in range(many)]
    after = [home_of(b"%d" % n, servers(10)) for n in range(many)]

    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]

    assert {new for _, new in moved} == {"10.0.0.10:8000"}
    assert len(moved) == pytest.approx(many / 10, rel=0.2)


def home_of(name: bytes, candidates: tuple[Server, ...]) -> str:
    key = number_of(name)
    return min(candidates, key=lambda c: rank(key, number_of(c.name.encode()), c.weight)).name


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5), st.integers(0, 1000))
def test_homes_follow_the_weights(weights: list[float], salt: int) -> None:
    candidates = tuple(Server(f"{salt}-{n}", weight) for n, weight in enumerate(weights))

    picked = Counter(home_of(b"%d" % n, candidates) for n in range(1500))

    for candidate in candidates:
        expected = 1500 * candidate.weight / sum(weights)
        assert picked[candidate.name] == pytest.approx(expected, abs=6 * (expected**0.5) + 5)


def test_a_session_whose_endpoint_is_gone_moves_and_stays_where_it_went() -> None:
    balancer, candidates = affinity(), servers(4)
    home = balancer.pick(candidates, session(1), 0.0)
    others = tuple(server for server in candidates if server is not home)

    second = balancer.pick(others, session(1), 1.0)

    assert second is not home
    assert balancer.pick(candidates, session(1), 2.0) is second


def test_sessions_of_other_endpoints_stay_when_one_goes() -> None:
    balancer, candidates = affinity(), servers(6)
    before = homes(balancer, candidates, 120)

    after = homes(balancer, candidates[1:], 120, 1.0)

    stayed = [(old, new) for old, new in zip(before, after, strict=True) if old != candidates[0].name]
    assert all(old == new for old, new in stayed)


@pytest.mark.parametrize("sessions", [600, 5000])
def test_new_sessions_are_spread_within_the_bound(sessions: int) -> None:
    balancer, candidates = affinity(), servers(12)

    picked = Counter(homes(balancer, candidates, sessions))

    assert max(picked.values()) <= 1.25 * sessions / 12 + 1


def test_one_name_for_everything_does_not_bury_one_endpoint() -> None:
    balancer, candidates = affinity(), servers(4)

    for _ in range(400):
        balancer.pick(candidates, session(1), 0.0).load.begin()

    assert max(server.load.in_flight for server in candidates) <= 1.25 * 100 + 1


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=300), st.integers(2, 6))
def test_new_requests_never_make_an_endpoint_worse_than_the_bound_both_now_and_lately(
    steps: list[tuple[int, bool]], count: int
) -> None:
    balancer, candidates = affinity(), servers(count)
    lately: Counter[str] = Counter()
    running: list[Server] = []

    for number, ends in steps:
        if ends and running:
            running.pop(0).load.end()
        chosen = balancer.pick(candidates, session(number), 0.0)
        share = (sum(s.load.in_flight for s in candidates) + 1) / count
        now_fits = chosen.load.in_flight < max(ALWAYS_ALLOWED, -(-1.25 * share // 1))
        lately_fits = lately[chosen.name] + 1 <= max(
            ALWAYS_RECENT, 1.25 * (lately.total() + 1) / count + 1e-9
        )
        fallback = all(s.load.in_flight >= chosen.load.in_flight for s in candidates)
        assert now_fits or lately_fits or fallback
        chosen.load.begin()
        running.append(chosen)
        lately[chosen.name] += 1


def test_a_sub_agent_is_put_beside_its_parent() -> None:
    balancer, candidates = affinity(), servers(12)
    for number in range(100):
        parent = balancer.pick(candidates, session(number), float(number))
        child = Hint(b"child-%d" % number, b"session-%d" % number)

        assert balancer.pick(candidates, child, number + 0.5) is parent


def test_a_swarm_of_sub_agents_does_not_bury_the_server_of_its_parent() -> None:
    balancer, candidates = affinity(), servers(4)
    balancer.pick(candidates, session(1), 0.0)

    for number in range(40):
        balancer.pick(candidates, Hint(b"child-%d" % number, b"session-1"), 0.0).load.begin()

    assert max(server.load.in_flight for server in candidates) <= 1.25 * 10 + 1


def test_sub_agents_of_an_unknown_parent_go_to_one_place() -> None:
    candidates = servers(12)

    places = {affinity().pick(candidates, Hint(b"child-%d" % n, b"parent"), 0.0).name for n in range(20)}

    assert len(places) == 1


def test_requests_without_a_session_are_balanced_as_ever() -> None:
    balancer, candidates = affinity("round_robin"), servers(3)

    names = [balancer.pick(candidates, Hint(), 0.0).name for _ in range(6)]

    assert names[:3] == names[3:]
    assert len(set(names)) == 3


@pytest.mark.parametrize("kind", ["round_robin", "weighted"])
def test_equal_first_turns_take_turns_where_shares_are_fixed(kind: str) -> None:
    balancer, candidates = affinity(kind), servers(3)

    picked = Counter(balancer.pick(candidates, Hint(b"hi", is_new=True), 0.0).name for _ in range(30))

    assert set(picked.values()) == {10}


@pytest.mark.parametrize("kind", ["round_robin", "least_connections"])
def test_a_conversation_stays_where_its_first_turn_went(kind: str) -> None:
    balancer, candidates = affinity(kind), servers(5)

    for number in range(50):
        first = balancer.pick(candidates, Hint(b"c%d" % number, is_new=True), 0.0)
        assert balancer.pick(candidates, Hint(b"c%d" % number), 1.0) is first


def test_equal_first_turns_stay_together_while_nobody_is_less_busy() -> None:
    balancer, candidates = affinity(), servers(3)
    first = balancer.pick(candidates, Hint(b"hi", is_new=True), 0.0)

    assert balancer.pick(candidates, Hint(b"hi", is_new=True), 1.0) is first
    first.load.begin()
    assert balancer.pick(candidates, Hint(b"hi", is_new=True), 2.0) is not first


def test_where_nobody_has_room_both_now_and_lately_the_other_balancer_decides() -> None:
    balancer, (busy, popular) = affinity(), servers(2)
    for number in range(100):
        balancer.pick((popular,), session(number), 0.0)
    for _ in range(50):
        busy.load.begin()

    assert balancer.pick((busy, popular), Hint(b"new"), 0.0) is popular


def test_a_balancer_is_made_with_affinity_or_without() -> None:
    assert isinstance(make_balancer("weighted", lambda: 0.0, affinity_bound=1.25), Affinity)
    assert isinstance(make_balancer("weighted", lambda: 0.0, affinity_bound=None), Weighted)


def test_remembers_a_bounded_number_of_sessions_the_latest() -> None:
    balancer, candidates = affinity(max_sessions=10), servers(3)
    kept = balancer.pick(candidates, session(0), 0.0)

    for number in range(1, 100):
        balancer.pick(candidates, session(number), 0.0)
        assert balancer.pick(candidates, session(0), 0.0) is kept

    assert len(balancer) == 10


def test_endpoints_that_came_and_went_are_forgotten() -> None:
    balancer = affinity()

    for number in range(2 * MAX_SEEDS):
        balancer.pick((Server(f"a{number}"), Server(f"b{number}")), session(number), number * DECAY_SECONDS)

    assert len(balancer._seeds) <= MAX_SEEDS + 2
    assert len(balancer._recent) < 1000


def test_agents_sessions_hit_their_cache_and_share_the_work() -> None:
    spec = importlib.util.spec_from_file_location("bench_affinity", ROOT / "bench" / "affinity.py")
    assert spec is not None and spec.loader is not None
    bench = sys.modules["bench_affinity"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    row = next(row for row in bench.rows() if row.label == "affinity by session header")

    result = bench.replay(row, sessions=600, endpoints=12, seed=1)

    assert result.hit_rate >= 0.90
    assert max(result.worst_requests, result.worst_work) <= 1.3
