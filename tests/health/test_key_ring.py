"""Keys give way, rest, and come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health.key_ring import MAX_REST_SECONDS, REFUSED_SECONDS, THROTTLED_SECONDS, KeyRing


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_refused_key_gives_way_to_the_next(status: int) -> None:
    ring = KeyRing(3)

    assert ring.refused(0, status, None, 0.0)

    assert ring.current == 1


def test_requests_refused_together_move_on_by_one_key() -> None:
    ring = KeyRing(3)

    assert [ring.refused(0, 429, None, 0.0) for _ in range(10)] == [True] * 10

    assert ring.current == 1


def test_when_all_rest_the_first_to_be_rested_is_used_and_the_answer_stands() -> None:
    ring = KeyRing(2)
    ring.refused(0, 429, None, 0.0)

    assert not ring.refused(1, 429, None, 1.0)

    assert ring.current == 0


@pytest.mark.parametrize(
    ("status", "retry_after", "rest"),
    [
        (429, None, THROTTLED_SECONDS),
        (429, 30.0, 30.0),
        (429, 1.0, THROTTLED_SECONDS),
        (401, None, REFUSED_SECONDS),
        (429, 1e9, MAX_REST_SECONDS),
    ],
)
def test_a_key_rests_and_comes_back(status: int, retry_after: float | None, rest: float) -> None:
    ring = KeyRing(2)
    ring.refused(0, status, retry_after, 0.0)

    assert not ring.refused(1, 401, None, rest - 0.1)

    ring = KeyRing(2)
    ring.refused(0, status, retry_after, 0.0)
    assert ring.refused(1, 401, None, rest)
    assert ring.current == 0


def test_rests_grow_with_each_refusal_and_shrink_when_the_key_works() -> None:
    ring = KeyRing(1)
    rests, now = [], 0.0

    for _ in range(4):
        ring.refused(0, 429, None, now)
        rests.append(ring._keys[0].rests_until - now)
        now = ring._keys[0].rests_until
    ring.worked(0)
    ring.refused(0, 429, None, now)

    assert rests == [5.0, 10.0, 20.0, 40.0]
    assert ring._keys[0].rests_until - now == 5.0


def test_a_single_key_has_no_other() -> None:
    ring = KeyRing(1)

    assert not ring.refused(0, 401, None, 0.0)
    assert ring.current == 0


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([401, 429]), st.floats(0, 100)), max_size=60),
)
def test_another_key_is_promised_only_where_a_rested_one_is_current(
    count: int, steps: list[tuple[int, int, float]]
) -> None:
    ring, now = KeyRing(count), 0.0

    for at, status, pause in steps:
        now += pause
        promised = ring.refused(at % count, status, None, now)
        assert promised is (ring._keys[ring.current].rests_until <= now)
