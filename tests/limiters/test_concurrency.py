"""Slots, and the hint when the next one frees up."""

import pytest

from proxy.limiters.concurrency import LONGEST_WAIT, SHORTEST_WAIT, UNKNOWN_WAIT, Slots


def test_no_limit_only_counts():
    slots = Slots(0)
    for _ in range(100):
        slots.take()

    assert slots.open == 100
    assert slots.wait() == UNKNOWN_WAIT


@pytest.mark.parametrize(
    ("limit", "held", "expected"),
    [(4, 20.0, 5.0), (1, 3.0, 3.0), (100, 0.5, SHORTEST_WAIT), (1, 3600.0, LONGEST_WAIT)],
)
def test_the_wait_is_the_usual_holding_time_shared_by_all_slots(limit, held, expected):
    slots = Slots(limit)
    for _ in range(3):
        slots.take()
        slots.release(held)

    assert slots.wait() == pytest.approx(expected)


def test_the_usual_holding_time_follows_a_change():
    slots = Slots(1)
    for held in [1.0] * 5 + [10.0] * 30:
        slots.take()
        slots.release(held)

    assert slots.wait() == pytest.approx(10.0, rel=0.05)
