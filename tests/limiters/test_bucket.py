"""The token bucket against arithmetic that is too simple to be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limiters.bucket import EPSILON, Bucket

costs = st.integers(0, 300)
gaps = st.floats(0, 100, allow_nan=False)


def test_a_fresh_bucket_lets_its_burst_through_and_not_one_more():
    bucket = Bucket(rate=1.0, burst=3.0, now=50.0)

    assert [bucket.reserve(1, 50.0) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_a_refusal_takes_nothing():
    bucket = Bucket(rate=1.0, burst=10.0, now=0.0)
    bucket.reserve(8, 0.0)

    assert bucket.reserve(5, 0.0) == pytest.approx(3.0)
    assert bucket.reserve(2, 0.0) == 0.0


def test_a_request_larger_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt():
    bucket = Bucket(rate=10.0, burst=100.0, now=0.0)
    bucket.reserve(50, 0.0)

    assert bucket.reserve(1000, 0.0) == pytest.approx(5.0)
    assert bucket.reserve(1000, 5.0) == 0.0
    assert bucket.level == pytest.approx(-900.0)
    assert bucket.reserve(1, 5.0) == pytest.approx(90.1)


def test_a_debt_delays_even_a_request_that_costs_nothing():
    bucket = Bucket(rate=10.0, burst=100.0, now=0.0)
    bucket.reserve(100, 0.0)
    bucket.settle(50, 0.0)

    assert bucket.reserve(0, 0.0) == pytest.approx(5.0)
    assert bucket.reserve(0, 5.0) == 0.0


def test_giving_back_never_fills_beyond_the_burst():
    bucket = Bucket(rate=1.0, burst=10.0, now=0.0)
    bucket.reserve(4, 0.0)
    bucket.settle(-4, 8.0)

    assert bucket.level == 10.0
    assert bucket.is_full(8.0)


def test_a_clock_that_stands_or_goes_back_adds_nothing():
    bucket = Bucket(rate=1.0, burst=2.0, now=100.0)
    bucket.reserve(2, 100.0)

    assert bucket.reserve(1, 90.0) == pytest.approx(1.0)
    assert bucket.reserve(1, 100.0) == pytest.approx(1.0)
    assert bucket.reserve(1, 101.0) == 0.0


@pytest.mark.parametrize(("level", "expected"), [(10.0, 40.0), (5.0, 20.0), (0.0, 0.0), (-7.0, -7.0)])
def test_a_new_shape_keeps_the_share_that_is_left_and_the_whole_debt(level, expected):
    former = Bucket(rate=1.0, burst=10.0, now=0.0)
    former.level = level
    bucket = Bucket(rate=2.0, burst=40.0, now=0.0)

    bucket.adopt(former, 0.0)

    assert bucket.level == expected


@given(st.floats(0.001, 2e6), st.integers(1, 10**8), st.integers(0, 10**8), st.floats(0, 1e7))
def test_whoever_waits_as_told_is_let_through(rate, burst, cost, start):
    bucket = Bucket(rate, float(burst), start)
    bucket.take(burst)

    wait = bucket.reserve(cost, start)

    assert bucket.reserve(cost, start + wait) == 0.0


@given(st.floats(0.1, 50), st.integers(1, 100), st.lists(st.tuples(gaps, costs, st.integers(-50, 50))))
def test_what_is_let_through_stays_within_burst_plus_what_flowed_in(rate, burst, steps):
    """Every admission found enough in the bucket, counted from any earlier moment at which it was full."""
    bucket = Bucket(rate, float(burst), 0.0)
    now = level = 0.0
    level = float(burst)

    for gap, cost, correction in steps:
        now += gap
        level = min(burst, level + gap * rate)
        wait = bucket.reserve(cost, now)
        if wait == 0.0:
            assert level >= min(cost, burst) - 2 * EPSILON
            level -= cost
        else:
            assert level < min(cost, burst)
            assert wait == pytest.approx((min(cost, burst) - level) / rate, abs=1e-6)
        bucket.settle(correction, now)
        level = min(burst, level - correction)
        assert bucket.level == pytest.approx(level, abs=1e-6)
