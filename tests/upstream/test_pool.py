"""Who gets a lease, who never does, and what a finished lease leaves behind."""

from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.balancers import KINDS, Hint
from proxy.errors import Overloaded
from proxy.health.breaker import BreakerSettings, State
from proxy.health.thresholds import ThresholdSettings
from proxy.upstream.endpoint import Changes, Endpoint, EndpointSpec, Vitals, split_url
from proxy.upstream.pool import Lease, Outcome, Pool

NOBODY = Hint()
BREAKER = BreakerSettings(failures=3, open_for=10.0)


class Wires:
    """Stands for an endpoint's connections."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def endpoint(changes: Changes, name: str, *, slow_start: float = 0.0, **spec: object) -> Endpoint:
    vitals = Vitals(
        changes, breaker=BREAKER, thresholds=ThresholdSettings(healthy=1, unhealthy=1), slow_start=slow_start
    )
    return Endpoint(EndpointSpec(name, "http", "127.0.0.1", ord(name[0]), **spec), vitals, Wires)


def pool_of(*names: str, kind: str = "least_connections", **spec: object) -> Pool:
    changes = Changes()
    endpoints = [endpoint(changes, name, **spec) for name in names]
    return Pool("default", endpoints, KINDS[kind](Random(1).random), changes)


def fail(pool: Pool, at: int, now: float, outcome: Outcome = Outcome.SERVER_ERROR) -> None:
    """Let the endpoint's breaker open."""
    others = [one for one in pool.endpoints if one is not pool.endpoints[at]]
    for _ in range(BREAKER.failures):
        pool.lease(NOBODY, now, others).finish(outcome, now)


def names_leased(pool: Pool, now: float, times: int = 40) -> set[str]:
    names = set()
    for _ in range(times):
        lease = pool.lease(NOBODY, now)
        names.add(lease.endpoint.name)
        lease.finish(Outcome.CLIENT_CLOSED, now)
    return names


def test_a_lease_holds_its_place_until_it_is_finished() -> None:
    pool = pool_of("a")

    lease = pool.lease(NOBODY, 0.0)
    assert pool.endpoints[0].in_flight == 1
    lease.finish(Outcome.OK, 1.0, 0.2)

    assert pool.endpoints[0].in_flight == 0
    assert pool.endpoints[0].load.latency == 0.2


def test_finishing_twice_counts_once() -> None:
    pool = pool_of("a")
    first, second = pool.lease(NOBODY, 0.0), pool.lease(NOBODY, 0.0)

    first.finish(Outcome.OK, 1.0)
    first.finish(Outcome.SERVER_ERROR, 1.0)

    assert pool.endpoints[0].in_flight == 1
    second.finish(Outcome.OK, 1.0)


def test_excluded_endpoints_are_passed_over() -> None:
    pool = pool_of("a", "b", "c")
    a, b, c = pool.endpoints

    assert {pool.lease(NOBODY, 0.0, [a, c]).endpoint for _ in range(10)} == {b}
    with pytest.raises(Overloaded):
        pool.lease(NOBODY, 0.0, [a, b, c])


def test_a_weight_of_zero_gets_nothing_new() -> None:
    changes = Changes()
    draining, other = endpoint(changes, "a", weight=0.0), endpoint(changes, "b")
    pool = Pool("default", [draining, other], KINDS["weighted"](Random(1).random), changes)

    assert names_leased(pool, 0.0) == {"b"}


def test_an_endpoint_that_the_checks_call_down_gets_nothing_until_they_call_it_up() -> None:
    pool = pool_of("a", "b")
    pool.endpoints[0].vitals.checked(False, 0.0)

    assert names_leased(pool, 0.0) == {"b"}
    assert pool.available == 1

    pool.endpoints[0].vitals.checked(True, 1.0)

    assert names_leased(pool, 1.0) == {"a", "b"}


def test_all_down_by_the_checks_is_refused_and_says_when_to_come_back() -> None:
    pool = pool_of("a", "b")
    for one in pool.endpoints:
        one.vitals.checked(False, 0.0)

    with pytest.raises(Overloaded) as caught:
        pool.lease(NOBODY, 0.0)

    assert caught.value.headers == {"Retry-After": "5", "retry-after-ms": "5000"}
    assert not any(character.isdigit() for character in caught.value.message)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(Overloaded):
        pool_of().lease(NOBODY, 0.0)


def test_a_breaker_takes_an_endpoint_out_and_lets_one_request_try_it_later() -> None:
    pool = pool_of("a", "b")
    fail(pool, 0, 0.0)

    assert names_leased(pool, 9.9) == {"b"}

    leases = [pool.lease(NOBODY, 10.0) for _ in range(20)]
    assert Counter(lease.endpoint.name for lease in leases)["a"] == 1
    for lease in leases:
        lease.finish(Outcome.OK, 11.0)

    assert names_leased(pool, 11.0) == {"a", "b"}


def test_a_probe_that_streams_for_minutes_clears_its_server_with_the_first_bytes() -> None:
    pool = pool_of("a", "b")
    fail(pool, 0, 0.0)
    probe = pool.lease(NOBODY, 10.0, [pool.endpoints[1]])

    probe.answered(10.5)

    assert pool.endpoints[0].vitals.breaker.state is State.CLOSED
    probe.finish(Outcome.RESET, 200.0)
    assert pool.endpoints[0].vitals.breaker.state is State.CLOSED
    assert pool.endpoints[0].in_flight == 0


def test_an_answer_that_begins_says_nothing_where_nobody_doubted() -> None:
    pool = pool_of("a")
    lease = pool.lease(NOBODY, 0.0)

    lease.answered(0.1)
    lease.finish(Outcome.OK, 1.0)

    assert pool.endpoints[0].in_flight == 0


def test_suspicion_of_everybody_is_no_reason_to_refuse() -> None:
    pool = pool_of("a", "b")
    fail(pool, 0, 0.0)
    fail(pool, 1, 0.0)

    assert [one.vitals.breaker.state for one in pool.endpoints] == [State.OPEN, State.OPEN]
    assert names_leased(pool, 1.0) == {"a", "b"}


def test_a_silent_endpoint_gets_nothing_while_another_responds() -> None:
    pool = pool_of("a", "b")
    silent, other = pool.endpoints

    silent.responds(False)
    assert names_leased(pool, 0.0) == {"b"}
    assert not pool.has_responsive(0.0, [other])

    other.responds(False)
    assert names_leased(pool, 0.0) == {"a", "b"}

    silent.responds(True)
    assert names_leased(pool, 0.0) == {"a"}
    assert pool.has_responsive(0.0, [other])


def test_a_success_under_general_suspicion_clears_the_endpoint() -> None:
    pool = pool_of("a", "b")
    fail(pool, 0, 0.0)
    fail(pool, 1, 0.0)
    pool.lease(NOBODY, 1.0, [pool.endpoints[1]]).finish(Outcome.OK, 1.5)

    assert names_leased(pool, 2.0) == {"a"}


def test_suspects_are_tried_when_everybody_else_was_excluded() -> None:
    pool = pool_of("a", "b")
    fail(pool, 0, 0.0)
    a, b = pool.endpoints

    assert pool.lease(NOBODY, 1.0, [b]).endpoint is a


def test_one_failed_connection_sends_the_next_requests_elsewhere() -> None:
    pool = pool_of("a", "b")
    pool.lease(NOBODY, 0.0, [pool.endpoints[1]]).finish(Outcome.CONNECT_FAILED, 0.1)

    assert names_leased(pool, 0.2) == {"b"}
    assert names_leased(pool, 1.2) == {"a", "b"}


def test_a_good_check_after_a_failed_connection_brings_it_back_at_once() -> None:
    pool = pool_of("a", "b")
    a, b = pool.endpoints
    pool.lease(NOBODY, 0.0, [b]).finish(Outcome.CONNECT_FAILED, 0.1)
    assert names_leased(pool, 0.2) == {"b"}

    a.vitals.checked(True, 0.3)

    assert names_leased(pool, 0.4) == {"a", "b"}


def test_a_clients_errors_never_take_an_endpoint_out() -> None:
    pool = pool_of("a", "b")

    for n in range(200):
        pool.lease(NOBODY, float(n)).finish(Outcome.CLIENT_ERROR, float(n))

    assert names_leased(pool, 200.0) == {"a", "b"}


def test_no_endpoint_gets_more_than_its_max_in_flight() -> None:
    pool = pool_of("a", "b", max_in_flight=2)

    leases = [pool.lease(NOBODY, 0.0) for _ in range(4)]
    with pytest.raises(Overloaded) as caught:
        pool.lease(NOBODY, 0.0)

    assert {one.in_flight for one in pool.endpoints} == {2}
    assert caught.value.headers["Retry-After"] == "1"
    leases[0].finish(Outcome.OK, 1.0)
    assert pool.lease(NOBODY, 1.0).endpoint is leases[0].endpoint


def test_an_endpoint_that_comes_back_gets_its_share_little_by_little() -> None:
    changes = Changes()
    endpoints = [endpoint(changes, name, slow_start=10.0) for name in "ab"]
    pool = Pool("default", endpoints, KINDS["weighted"](Random(1).random), changes)
    endpoints[0].vitals.checked(False, 0.0)
    endpoints[0].vitals.checked(True, 100.0)

    shares = []
    for now in (100.0, 105.0, 110.0, 200.0):
        picked = Counter(pool.lease(NOBODY, now).endpoint.name for _ in range(1100))
        shares.append(picked["a"] / 1100)

    assert shares == pytest.approx([1 / 11, 1 / 3, 1 / 2, 1 / 2], abs=0.01)


def test_replaced_endpoints_get_nothing_new_and_keep_what_runs_there() -> None:
    pool = pool_of("a")
    old = pool.lease(NOBODY, 0.0)
    newcomer = endpoint(Changes(), "n")

    pool.replace([newcomer])

    assert pool.lease(NOBODY, 0.0).endpoint is newcomer
    old.finish(Outcome.OK, 1.0)
    assert old.endpoint.in_flight == 0


@pytest.mark.parametrize(
    ("url", "expected", "authority"),
    [
        ("http://127.0.0.1:8001", ("http", "127.0.0.1", 8001, b""), b"127.0.0.1:8001"),
        ("http://host", ("http", "host", 80, b""), b"host"),
        ("https://host/", ("https", "host", 443, b""), b"host"),
        ("https://host:80/openai/", ("https", "host", 80, b"/openai"), b"host:80"),
        ("http://[::1]:9/x", ("http", "::1", 9, b"/x"), b"[::1]:9"),
        ("http://bücher.example", ("http", "xn--bcher-kva.example", 80, b""), b"xn--bcher-kva.example"),
    ],
)
def test_urls_come_apart(url: str, expected: tuple[str, str, int, bytes], authority: bytes) -> None:
    pieces = split_url(url)

    assert pieces == expected
    assert EndpointSpec("e", *pieces).authority == authority


@pytest.mark.parametrize(
    "url", ["host:80", "ftp://host", "http://", "http://u:p@host", "http://h/?x=1", "http://h/#f"]
)
def test_urls_with_more_or_less_than_an_address_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        split_url(url)


class PoolMachine(RuleBasedStateMachine):
    """Leases, finishes, checks and time in any order: nothing leaks and nobody is over their bound."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = pool_of("a", "b", "c", kind="weighted", max_in_flight=3)
        self.now = 0.0
        self.open: list[Lease] = []

    @rule(excluded=st.sets(st.integers(0, 2)))
    def lease(self, excluded: set[int]) -> None:
        exclude = [self.pool.endpoints[at] for at in excluded]
        allowed = [e for e in self.pool.endpoints if e not in exclude and e.is_up]
        try:
            lease = self.pool.lease(NOBODY, self.now, exclude)
        except Overloaded:
            some_trusted = [e for e in allowed if not e.is_full and e.vitals.breaker.state is State.CLOSED]
            assert not some_trusted
        else:
            assert lease.endpoint in allowed
            self.open.append(lease)

    @rule(at=st.integers(0, 20), outcome=st.sampled_from(list(Outcome)))
    def finish(self, at: int, outcome: Outcome) -> None:
        if self.open:
            self.open.pop(at % len(self.open)).finish(outcome, self.now, 0.1)

    @rule(at=st.integers(0, 2), good=st.booleans())
    def check(self, at: int, good: bool) -> None:
        self.pool.endpoints[at].vitals.checked(good, self.now)

    @rule(seconds=st.floats(0.0, 15.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def in_flight_is_what_is_open(self) -> None:
        held = Counter(lease.endpoint.name for lease in self.open)
        assert {one.name: one.in_flight for one in self.pool.endpoints} == {
            name: held.get(name, 0) for name in "abc"
        }
        assert max(one.in_flight for one in self.pool.endpoints) <= 3


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
