"""The breaker opens on the server's failures only, and closes on its successes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health.breaker import Breaker, BreakerSettings, State
from proxy.health.outcome import FAILURES, SUCCESSES, Outcome

SETTINGS = BreakerSettings(failures=3, error_rate=0.5, min_requests=10, window=30.0, open_for=10.0, probes=1)
SLOW_FAILURES = sorted(FAILURES - {Outcome.CONNECT_FAILED}, key=lambda outcome: outcome.value)


def report(breaker: Breaker, outcome: Outcome, now: float) -> bool:
    return breaker.record(outcome, now, breaker.begin())


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(SETTINGS)
    for _ in range(3):
        report(breaker, Outcome.SERVER_ERROR, now)
    assert breaker.state is State.OPEN
    return breaker


def test_outcomes_are_successes_or_failures_or_say_nothing() -> None:
    assert set(Outcome) - SUCCESSES - FAILURES == {
        Outcome.CLIENT_CLOSED,
        Outcome.STALE,
        Outcome.UNRESPONSIVE,
    }
    assert not SUCCESSES & FAILURES


@pytest.mark.parametrize("outcome", SLOW_FAILURES)
def test_opens_after_so_many_failures_in_a_row(outcome: Outcome) -> None:
    breaker = Breaker(SETTINGS)

    changes = [report(breaker, outcome, 0.0) for _ in range(3)]

    assert changes == [False, False, True]
    assert not breaker.admits(9.9)


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - FAILURES, key=lambda outcome: outcome.value))
def test_what_is_not_the_servers_fault_never_opens_it(outcome: Outcome) -> None:
    breaker = Breaker(SETTINGS)

    assert not any(report(breaker, outcome, n / 10) for n in range(1000))

    assert breaker.admits(100.0)


def test_a_success_ends_the_row() -> None:
    breaker = Breaker(SETTINGS)

    for outcome in [Outcome.RESET, Outcome.RESET, Outcome.OK, Outcome.RESET, Outcome.RESET]:
        report(breaker, outcome, 0.0)

    assert breaker.state is State.CLOSED


def test_opens_on_a_bad_rate_though_successes_lie_between() -> None:
    breaker = Breaker(SETTINGS)

    for n in range(10):
        report(breaker, Outcome.SERVER_ERROR if n % 2 else Outcome.OK, n / 10)

    assert breaker.state is State.OPEN


def test_a_rate_of_too_few_requests_says_nothing() -> None:
    breaker = Breaker(SETTINGS)

    for n in range(9):
        report(breaker, Outcome.SERVER_ERROR if n % 2 else Outcome.OK, n / 10)

    assert breaker.state is State.CLOSED


def test_failures_older_than_the_window_do_not_count() -> None:
    breaker = Breaker(SETTINGS)
    for n in range(4):
        report(breaker, Outcome.SERVER_ERROR if n % 2 else Outcome.OK, 0.0)

    for n in range(9):
        report(breaker, Outcome.OK if n % 3 else Outcome.SERVER_ERROR, 100.0)

    assert breaker.state is State.CLOSED


def test_half_opens_for_one_request_and_closes_on_its_success() -> None:
    breaker = opened()

    assert breaker.admits(10.0)
    term = breaker.begin()
    assert not breaker.admits(10.1)
    assert breaker.record(Outcome.OK, 11.0, term)

    assert breaker.state is State.CLOSED
    assert breaker.admits(11.0)


def test_half_open_opens_again_on_the_first_failure() -> None:
    breaker = opened()
    breaker.admits(10.0)

    assert report(breaker, Outcome.TIMEOUT, 12.0)

    assert breaker.state is State.OPEN
    assert not breaker.admits(21.9)
    assert breaker.admits(22.0)


def test_a_probe_whose_client_left_frees_its_place() -> None:
    breaker = opened()
    breaker.admits(10.0)

    assert report(breaker, Outcome.CLIENT_CLOSED, 10.5)

    assert breaker.state is State.HALF_OPEN
    assert breaker.admits(10.6)


def test_a_probe_that_runs_long_does_not_keep_others_from_trying() -> None:
    breaker = opened()
    breaker.admits(10.0)
    breaker.begin()

    assert not breaker.admits(19.9)
    assert breaker.admits(20.0)


def test_a_stream_from_before_the_outage_says_nothing_about_the_recovery() -> None:
    breaker = Breaker(SETTINGS)
    old = breaker.begin()
    for _ in range(3):
        report(breaker, Outcome.SERVER_ERROR, 0.0)
    breaker.admits(10.0)

    assert not breaker.record(Outcome.OK, 10.0, old)

    assert breaker.state is State.HALF_OPEN


def test_a_refused_connection_opens_it_at_once_for_a_second_then_for_longer() -> None:
    breaker = Breaker(SETTINGS)
    now, pauses = 0.0, []

    for _ in range(6):
        report(breaker, Outcome.CONNECT_FAILED, now)
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        assert breaker.admits(now)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_connection_somebody_else_made_ends_refusals() -> None:
    breaker = Breaker(SETTINGS)
    report(breaker, Outcome.CONNECT_FAILED, 0.0)

    assert breaker.reached()

    assert breaker.state is State.CLOSED


def test_a_connection_somebody_else_made_does_not_end_other_failures() -> None:
    breaker = opened()

    assert not breaker.reached()

    assert breaker.state is State.OPEN


def test_reaching_a_server_that_was_never_out_changes_nothing() -> None:
    assert not Breaker(SETTINGS).reached()


def test_without_settings_it_never_opens() -> None:
    breaker = Breaker(None)

    for outcome in [*Outcome] * 100:
        assert not report(breaker, outcome, 0.0)

    assert breaker.admits(0.0)


@given(st.lists(st.tuples(st.sampled_from(list(Outcome)), st.floats(0.0, 30.0)), max_size=60))
def test_whatever_happened_it_admits_again_within_its_pause(steps: list[tuple[Outcome, float]]) -> None:
    breaker, now = Breaker(SETTINGS), 0.0

    for outcome, pause in steps:
        now += pause
        if breaker.admits(now):
            report(breaker, outcome, now)

    assert breaker.admits(now + SETTINGS.open_for)
