"""Retries: what is tried again, when, and how often at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health.budget import MIN_EXTRAS
from proxy.health.retry import RetryPolicy, RetrySettings, retry_after_seconds

SETTINGS = RetrySettings(
    max_retries=3,
    retry_on=frozenset((429, 503, "first_byte_timeout")),
    initial_wait=1.0,
    max_wait=10.0,
    multiplier=2.0,
)


def policy(settings: RetrySettings | None = SETTINGS, chance: float = 1.0) -> RetryPolicy:
    return RetryPolicy(settings, lambda: chance)


def after_status(status: int, made: int = 1, retry_after: float | None = None) -> float | None:
    return policy().wait_after_status(status, retry_after, made, now=0.0, elsewhere=False)


@pytest.mark.parametrize(("made", "wait"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, None), (30, None)])
def test_waits_grow_until_no_retry_is_left(made: int, wait: float | None) -> None:
    assert after_status(503, made) == wait


def test_no_wait_is_longer_than_the_longest() -> None:
    patient = policy(RetrySettings(max_retries=20))

    assert patient.wait_after_status(503, None, 19, now=0.0, elsewhere=False) == 10.0


@pytest.mark.parametrize("status", [200, 400, 404, 500, 502])
def test_what_is_not_listed_is_passed_on(status: int) -> None:
    assert after_status(status) is None


def test_5xx_lists_them_all() -> None:
    lenient = policy(RetrySettings(retry_on=frozenset(("5xx",))))

    waits = [lenient.wait_after_status(s, None, 1, now=0.0, elsewhere=False) for s in (429, 500, 504, 599)]

    assert waits == [None, 1.0, 1.0, 1.0]


def test_the_wait_is_drawn_from_zero_up() -> None:
    assert policy(chance=0.0).wait_after_status(503, None, 3, now=0.0, elsewhere=False) == 0.0
    assert policy(chance=0.25).wait_after_status(503, None, 3, now=0.0, elsewhere=False) == 1.0


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(0.0, 1.0), (3.0, pytest.approx(3.3)), (9.9, 10.0), (10.0, 10.0), (10.1, None), (3600.0, None)],
)
def test_retry_after_is_honoured_or_left_to_the_client(asked: float, wait: float | None) -> None:
    assert after_status(503, 1, asked) == wait


def test_another_endpoint_need_not_be_waited_for() -> None:
    assert policy().wait_after_status(429, 3600.0, 1, now=0.0, elsewhere=True) == 0.0
    assert policy().wait_after_timeout(1, now=0.0, elsewhere=True) == 0.0


def test_silence_is_retried_where_listed() -> None:
    assert policy().wait_after_timeout(1, now=0.0, elsewhere=False) == 1.0
    assert policy(RetrySettings()).wait_after_timeout(1, now=0.0, elsewhere=False) is None


def test_an_end_without_an_answer_is_retried_where_listed() -> None:
    listed = policy(RetrySettings(retry_on=frozenset(("no_answer",))))

    assert listed.wait_after_no_answer(1, now=0.0, elsewhere=True) == 0.0
    assert policy(RetrySettings()).wait_after_no_answer(1, now=0.0, elsewhere=True) is None


def test_without_settings_nothing_is_tried_again() -> None:
    off = policy(None)
    off.began(0.0)

    assert off.wait_after_status(503, None, 1, now=0.0, elsewhere=True) is None
    assert off.wait_after_timeout(1, now=0.0, elsewhere=True) is None


def test_when_everything_fails_the_budget_ends_it() -> None:
    shared = policy()
    retried = 0

    for _ in range(1000):
        shared.began(0.0)
        retried += shared.wait_after_status(503, None, 1, now=0.0, elsewhere=True) is not None

    assert retried == pytest.approx(MIN_EXTRAS + 0.2 * 1000, abs=2)


@pytest.mark.parametrize(
    ("seconds", "milliseconds", "expected"),
    [
        (None, None, None),
        (b"7", None, 7.0),
        (b" 7 ", None, 7.0),
        (b"1.5", None, 1.5),
        (b"7", b"250", 0.25),
        (b"7", b"soon", 7.0),
        (b"Wed, 21 Oct 2015 07:28:30 GMT", None, 30.0),
        (b"Wed, 21 Oct 2015 07:27:00 GMT", None, 0.0),
        (b"soon", None, None),
        (b"-5", None, None),
        (b"1" * 21, None, None),
        (b"", None, None),
        (b".", None, None),
        (b"\xff", None, None),
        (b"Wed, 21 Oct 99999999 07:28:30 GMT", None, None),
    ],
)
def test_reads_what_servers_ask_for(
    seconds: bytes | None, milliseconds: bytes | None, expected: float | None
) -> None:
    wall = 1445412480.0  # Wed, 21 Oct 2015 07:28:00 GMT

    assert retry_after_seconds(seconds, milliseconds, wall) == expected


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_ignored(value: bytes) -> None:
    wait = retry_after_seconds(value, value, 0.0)

    assert wait is None or wait >= 0.0
