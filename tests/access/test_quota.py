"""What a quota counts, and when it begins anew."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access import Quota, next_period_start, period_start


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


STARTS = [
    ("daily", "2026-03-01T00:00:00", "2026-03-01T00:00:00"),
    ("daily", "2026-02-28T23:59:59.999", "2026-02-28T00:00:00"),
    ("weekly", "2026-03-02T00:00:00", "2026-03-02T00:00:00"),  # a Monday
    ("weekly", "2026-03-01T23:59:59", "2026-02-23T00:00:00"),
    ("weekly", "2027-01-01T12:00:00", "2026-12-28T00:00:00"),
    ("monthly", "2026-02-28T23:59:59", "2026-02-01T00:00:00"),
    ("monthly", "2028-02-29T10:00:00", "2028-02-01T00:00:00"),
    ("monthly", "2026-12-31T23:59:59", "2026-12-01T00:00:00"),
]


@pytest.mark.parametrize(("period", "now", "start"), STARTS)
def test_periods_begin_at_midnight_utc(period, now, start):
    assert period_start(period, at(now)) == at(start)


def test_never_has_no_start():
    assert period_start("never", at("2026-03-01T00:00:00")) is None


@given(st.sampled_from(["daily", "weekly", "monthly"]), st.floats(0, 4e9))
def test_a_period_holds_its_moment_and_begins_where_it_says(period, now):
    start = period_start(period, now)

    assert start <= now < start + 31 * 86_400
    assert period_start(period, start) == start


def test_use_of_a_past_period_is_no_use_now():
    quota = Quota(100, used=100, period="daily", last_reset_at=at("2026-03-01T00:00:00"))

    assert quota.used_at(at("2026-03-01T23:59:59")) == 100
    assert quota.used_at(at("2026-03-02T00:00:00")) == 0


def test_a_debit_begins_the_new_period():
    quota = Quota(100, used=90, period="monthly", last_reset_at=at("2026-02-01T00:00:00"))

    debited = quota.debited(7, at("2026-03-15T12:00:00"))

    assert (debited.used, debited.last_reset_at) == (7, at("2026-03-01T00:00:00"))
    assert debited.debited(7, at("2026-03-16T12:00:00")).used == 14


BACK = [
    ("daily", "2026-03-02T00:00:00", "2026-03-01T23:59:59", 90),  # a second back over midnight
    ("daily", "2026-03-02T00:00:00", "2026-03-01T00:00:00", 90),
    ("daily", "2026-03-03T00:00:00", "2026-03-01T23:59:59", 0),
    ("daily", "2027-03-01T00:00:00", "2026-03-01T12:00:00", 0),
    ("weekly", "2026-03-09T00:00:00", "2026-03-03T12:00:00", 90),
    ("weekly", "2026-03-16T00:00:00", "2026-03-03T12:00:00", 0),
    ("monthly", "2026-03-01T00:00:00", "2026-02-27T12:00:00", 90),
    ("monthly", "2026-04-01T00:00:00", "2026-02-27T12:00:00", 0),
    ("never", "2027-03-01T00:00:00", "2026-03-01T12:00:00", 90),
]


@pytest.mark.parametrize(("period", "reset", "now", "used"), BACK)
def test_a_clock_that_went_back_gives_nothing_twice_and_locks_nobody_out(period, reset, now, used):
    quota = Quota(100, used=90, period=period, last_reset_at=at(reset))

    assert quota.used_at(at(now)) == used
    assert quota.debited(7, at(now)).used == used + 7


@given(st.sampled_from(["daily", "weekly", "monthly"]), st.floats(0, 4e9))
def test_the_next_period_follows_the_one_of_now(period, now):
    start, end = period_start(period, now), next_period_start(period, now)

    assert now < end
    assert period_start(period, end - 1) == start
    assert period_start(period, end) == end


def test_without_a_period_everything_is_counted_for_ever():
    quota = Quota(100, used=90)

    assert quota.debited(20, 4e9).used == 110


def test_use_that_was_never_reset_lies_in_a_past_period():
    assert Quota(100, used=100, period="weekly").used_at(at("2026-03-01T00:00:00")) == 0
