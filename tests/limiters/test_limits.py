"""All limits together: all or nothing, exact, and nothing ever leaks."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.limiters.bucket import EPSILON
from proxy.limiters.limits import Grant, Limits, Refusal, Subject
from proxy.limiters.spec import LimitSpec, ScopeSpecs

ALICE = Subject(key_id="alice", user_id="u1", model="qwen", ip="10.0.0.1")


def limits_of(**specs):
    return Limits(ScopeSpecs(**specs))


def reconfigure(limits, **specs):
    limits.configure(ScopeSpecs(**specs))


def admitted(limits, subject, count, *, tokens=0, now=0.0):
    return sum(isinstance(limits.reserve(subject, tokens, now), Grant) for _ in range(count))


def test_nothing_configured_lets_everything_through_and_says_nothing():
    limits = limits_of()

    grant = limits.reserve(ALICE, 10**9, 0.0)

    assert isinstance(grant, Grant)
    assert grant.headers == b""
    assert grant.fields() == {}


@pytest.mark.parametrize("scope", ["global_", "per_key", "per_user", "per_model", "per_ip"])
@pytest.mark.parametrize(
    ("spec", "kind", "wait"),
    [
        (LimitSpec(requests_per_second=1, burst_size=3), "requests", 1.0),
        (LimitSpec(requests_per_minute=3), "requests", 20.0),
        (LimitSpec(tokens_per_minute=30), "tokens", 20.0),
        (LimitSpec(max_concurrent=3), "concurrent", 1.0),
    ],
)
def test_every_limit_works_in_every_scope(scope, spec, kind, wait):
    limits = limits_of(**{scope: spec})

    assert admitted(limits, ALICE, 3, tokens=10) == 3
    refusal = limits.reserve(ALICE, 10, 0.0)

    assert isinstance(refusal, Refusal)
    assert refusal.limiter == scope.rstrip("_")
    assert refusal.kind == kind
    assert refusal.retry_after == pytest.approx(wait)
    assert refusal.fields()["retry-after"] == str(int(wait))
    assert refusal.message.startswith(f"{scope.rstrip('_')} limit of ")
    assert kind in refusal.message
    assert refusal.message.endswith(f"reached, retry in {wait:.1f} s")


def test_each_subject_has_its_own_limit():
    limits = limits_of(per_key=LimitSpec(requests_per_minute=2))

    assert admitted(limits, Subject("alice"), 5) == 2
    assert admitted(limits, Subject("bob"), 5) == 2
    assert admitted(limits, Subject(None), 5) == 5


def test_a_key_may_bring_limits_of_its_own():
    limits = limits_of(per_key=LimitSpec(requests_per_minute=2, max_concurrent=50))

    assert admitted(limits, Subject("vip", limits=LimitSpec(requests_per_minute=9)), 60) == 9
    assert admitted(limits, Subject("free", limits=LimitSpec(requests_per_minute=0)), 60) == 50
    assert admitted(limits_of(), Subject("only", limits=LimitSpec(max_concurrent=4)), 60) == 4


def test_a_key_whose_limits_changed_is_counted_on():
    limits = limits_of(per_key=LimitSpec(max_concurrent=2))
    subject = Subject("alice")
    held = [limits.reserve(subject, 0, 0.0) for _ in range(2)]

    wider = Subject("alice", limits=LimitSpec(max_concurrent=3))
    assert admitted(limits, wider, 5) == 1
    assert admitted(limits, subject, 5) == 0

    for grant in held:
        grant.release(1.0)
    assert admitted(limits, subject, 5) == 1


def test_an_equal_copy_of_a_keys_limits_changes_nothing():
    limits = limits_of()

    for _ in range(3):
        subject = Subject("alice", limits=LimitSpec(requests_per_minute=3))
        assert admitted(limits, subject, 1) == 1
    assert admitted(limits, subject, 1) == 0


def test_a_refusal_anywhere_takes_nothing_anywhere():
    limits = limits_of(
        global_=LimitSpec(requests_per_minute=10, tokens_per_minute=1000, max_concurrent=10),
        per_key=LimitSpec(requests_per_minute=1),
    )
    assert admitted(limits, Subject("alice"), 5, tokens=100) == 1

    assert admitted(limits, Subject("alice"), 20, tokens=100) == 0

    fields = limits.reserve(Subject("bob"), 100, 0.0).fields()
    assert fields["ratelimit"] == (
        '"global-concurrent";r=8, "global-rpm";r=8;t=12, "global-tpm";r=800;t=12, "key-rpm";r=0;t=60'
    )
    assert limits.open_slots()["global"] == 2


def test_the_longest_wait_is_the_one_that_is_told():
    limits = limits_of(
        global_=LimitSpec(requests_per_second=1, burst_size=1),
        per_key=LimitSpec(requests_per_minute=1, max_concurrent=1),
    )
    limits.reserve(ALICE, 0, 0.0)

    refusal = limits.reserve(ALICE, 0, 0.0)

    assert (refusal.limiter, refusal.kind) == ("per_key", "requests")
    assert refusal.headers.endswith(b"retry-after: 60\r\nretry-after-ms: 60000\r\n")


def test_concurrency_is_asked_before_requests_and_tokens_where_waits_are_equal():
    limits = limits_of(
        per_key=LimitSpec(requests_per_second=1, burst_size=1, tokens_per_minute=60, max_concurrent=1)
    )
    limits.reserve(ALICE, 60, 0.0)

    assert limits.reserve(ALICE, 1, 0.0).kind == "concurrent"


def test_the_headers_are_correct_to_the_request():
    limits = limits_of(per_key=LimitSpec(requests_per_minute=5))

    grants = [limits.reserve(ALICE, 0, 0.0) for _ in range(5)]

    remaining = [grant.fields()["x-ratelimit-remaining-requests"] for grant in grants]
    assert remaining == ["4", "3", "2", "1", "0"]


def test_the_tightest_limit_wins_in_openais_headers():
    limits = limits_of(global_=LimitSpec(requests_per_minute=100), per_user=LimitSpec(requests_per_second=3))

    fields = limits.reserve(ALICE, 0, 0.0).fields()

    assert fields["x-ratelimit-limit-requests"] == "6"
    assert fields["x-ratelimit-remaining-requests"] == "5"
    assert fields["ratelimit-policy"] == '"global-rpm";q=100;w=60, "user-rps";q=6;w=2'


def test_settling_charges_the_difference_once():
    limits = limits_of(per_key=LimitSpec(tokens_per_minute=1000))
    grant = limits.reserve(ALICE, 600, 0.0)

    grant.settle(100, 0.0)
    grant.settle(900, 0.0)
    grant.release(0.0)

    assert limits.reserve(ALICE, 0, 0.0).fields()["x-ratelimit-remaining-tokens"] == "900"


def test_an_unknown_cost_leaves_the_estimate_standing_until_it_is_known():
    limits = limits_of(per_key=LimitSpec(tokens_per_minute=1000))
    grant = limits.reserve(ALICE, 600, 0.0)

    grant.settle(None, 0.0)
    grant.release(0.0)
    assert limits.reserve(ALICE, 0, 0.0).fields()["x-ratelimit-remaining-tokens"] == "400"

    grant.settle(0, 0.0)
    assert limits.reserve(ALICE, 0, 0.0).fields()["x-ratelimit-remaining-tokens"] == "1000"


def test_using_more_than_was_reserved_delays_the_next_request():
    limits = limits_of(per_key=LimitSpec(tokens_per_minute=600))
    grant = limits.reserve(ALICE, 100, 0.0)

    grant.settle(700, 0.0)
    grant.release(0.0)
    refusal = limits.reserve(ALICE, 100, 0.0)

    assert refusal.retry_after == pytest.approx(20.0)
    assert isinstance(limits.reserve(ALICE, 100, 20.0), Grant)


def test_a_slot_is_given_back_once():
    limits = limits_of(per_key=LimitSpec(max_concurrent=2))
    first, _second = (limits.reserve(ALICE, 0, 0.0) for _ in range(2))

    first.release(1.0)
    first.release(1.0)

    assert admitted(limits, ALICE, 5) == 1


def test_a_refused_client_hears_how_long_slots_are_usually_held():
    limits = limits_of(per_key=LimitSpec(max_concurrent=2))
    for _ in range(5):
        limits.reserve(ALICE, 0, 0.0).release(9.0)
    admitted(limits, ALICE, 2, now=10.0)

    assert limits.reserve(ALICE, 0, 10.0).retry_after == pytest.approx(4.5)


def test_a_new_configuration_keeps_open_slots_and_what_was_used():
    limits = limits_of(per_key=LimitSpec(requests_per_minute=10, max_concurrent=5))
    held = [limits.reserve(ALICE, 0, 0.0) for _ in range(5)]

    reconfigure(limits, per_key=LimitSpec(requests_per_minute=20, max_concurrent=6))

    grant = limits.reserve(ALICE, 0, 0.0)
    assert grant.fields()["x-ratelimit-remaining-requests"] == "9"
    assert admitted(limits, ALICE, 1) == 0
    for each in [*held, grant]:
        each.release(1.0)
    assert limits.open_slots()["per_key"] == 0


def test_scopes_can_be_switched_on_and_off_while_requests_run():
    limits = limits_of(per_ip=LimitSpec(max_concurrent=1))
    held = limits.reserve(ALICE, 0, 0.0)

    reconfigure(limits, global_=LimitSpec(requests_per_minute=1))
    assert admitted(limits, ALICE, 2) == 1
    reconfigure(limits, per_ip=LimitSpec(max_concurrent=1))
    assert admitted(limits, ALICE, 1) == 0

    held.release(1.0)
    assert admitted(limits, ALICE, 2) == 1


def test_headers_of_a_running_request_survive_a_new_configuration():
    limits = limits_of(per_key=LimitSpec(requests_per_minute=10, tokens_per_minute=100))
    grant = limits.reserve(ALICE, 10, 0.0)

    reconfigure(limits, per_key=LimitSpec(requests_per_second=10))
    limits.reserve(ALICE, 10, 0.0)

    assert grant.fields()["x-ratelimit-remaining-requests"] == "9"
    assert grant.fields()["x-ratelimit-remaining-tokens"] == "90"


def test_tokens_are_counted_only_where_they_are_limited():
    assert not limits_of(per_key=LimitSpec(requests_per_minute=1)).counts_tokens(ALICE)
    assert limits_of(per_model=LimitSpec(tokens_per_minute=1)).counts_tokens(ALICE)
    assert limits_of().counts_tokens(Subject("alice", limits=LimitSpec(tokens_per_minute=1)))


def test_a_thousand_random_requests_and_aborts_leave_every_gauge_at_zero():
    chance = random.Random(7)
    spec = LimitSpec(requests_per_second=50, tokens_per_minute=100_000, max_concurrent=20)
    limits = limits_of(global_=spec, per_key=spec, per_user=spec, per_model=spec, per_ip=spec)
    held = []
    now = 0.0

    for _ in range(1000):
        now += chance.random() / 10
        who = str(chance.randrange(8))
        verdict = limits.reserve(Subject(who, who, "m" + who, "10.0.0." + who), chance.randrange(500), now)
        if isinstance(verdict, Grant):
            held.append(verdict)
        while held and chance.random() < 0.5:
            ended = held.pop(chance.randrange(len(held)))
            ended.settle(chance.choice([None, 0, 700]), now)
            for _ in range(chance.randrange(1, 3)):
                ended.release(now)
    assert limits.open_slots()["global"] == len(held)
    for grant in held:
        grant.release(now)

    assert set(limits.open_slots().values()) == {0}
    assert max(limits.table_sizes().values()) == 8


class Machine(RuleBasedStateMachine):
    """Limits beside a model that keeps every number in plain sight."""

    KEYS = ("a", "b", "c")
    RPM, TPM, CONCURRENT, GLOBAL_RPM = 12, 600, 3, 20

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.limits = limits_of(
            global_=LimitSpec(requests_per_minute=self.GLOBAL_RPM),
            per_key=LimitSpec(
                requests_per_minute=self.RPM, tokens_per_minute=self.TPM, max_concurrent=self.CONCURRENT
            ),
        )
        self.everybody = float(self.GLOBAL_RPM)
        self.requests = dict.fromkeys(self.KEYS, float(self.RPM))
        self.tokens = dict.fromkeys(self.KEYS, float(self.TPM))
        self.running = []
        self.ended = []

    @rule(seconds=st.sampled_from([0.5, 1, 7, 60]))
    def time_passes(self, seconds):
        self.now += seconds
        self.everybody = min(self.GLOBAL_RPM, self.everybody + seconds * self.GLOBAL_RPM / 60)
        for key in self.KEYS:
            self.requests[key] = min(self.RPM, self.requests[key] + seconds * self.RPM / 60)
            self.tokens[key] = min(self.TPM, self.tokens[key] + seconds * self.TPM / 60)

    @rule(key=st.sampled_from(KEYS), tokens=st.sampled_from([0, 1, 50, 599, 600, 5000]))
    def request(self, key, tokens):
        slack = 2 * EPSILON
        running = sum(name == key for name, _, _ in self.running)
        is_free = (
            running < self.CONCURRENT
            and self.everybody >= 1 - slack
            and self.requests[key] >= 1 - slack
            and self.tokens[key] >= min(tokens, self.TPM) - slack
        )

        verdict = self.limits.reserve(Subject(key), tokens, self.now)

        assert isinstance(verdict, Grant) == is_free
        if isinstance(verdict, Refusal):
            assert verdict.retry_after > 0
            assert int(verdict.fields()["retry-after"]) >= 1
            return
        self.everybody -= 1
        self.requests[key] -= 1
        self.tokens[key] -= tokens
        left = min(self.everybody, self.requests[key])
        assert abs(int(verdict.fields()["x-ratelimit-remaining-requests"]) - left) < 1.01
        self.running.append((key, tokens, verdict))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), used=st.sampled_from([None, 0, 10, 700, 5000]))
    def end(self, data, used):
        at = data.draw(st.integers(0, len(self.running) - 1))
        key, tokens, grant = self.running.pop(at)

        grant.settle(used, self.now)
        grant.release(self.now)

        if used is not None:
            self.tokens[key] = min(self.TPM, self.tokens[key] + tokens - used)
            self.ended.append(grant)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def end_again(self, data):
        grant = data.draw(st.sampled_from(self.ended))

        grant.settle(300, self.now)
        grant.release(self.now)

    @invariant()
    def gauges_tell_what_runs(self):
        assert self.limits.open_slots()["per_key"] == len(self.running)
        assert self.limits.open_slots()["global"] == len(self.running)

    def teardown(self):
        for _, _, grant in self.running:
            grant.release(self.now)
        assert set(self.limits.open_slots().values()) == {0}


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
