"""From what people write to the shape of the buckets."""

import pytest

from proxy.limiters.spec import MAX_PLANS, LimitSpec, merged, plan, plan_of


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        (LimitSpec(), []),
        (LimitSpec(requests_per_second=10), [("key-rps", 10.0, 20.0)]),
        (LimitSpec(requests_per_second=10, burst_size=5), [("key-rps", 10.0, 5.0)]),
        (LimitSpec(requests_per_second=0.1), [("key-rps", 0.1, 1.0)]),
        (LimitSpec(requests_per_minute=60), [("key-rpm", 1.0, 60.0)]),
        (LimitSpec(requests_per_minute=60, burst_size=5), [("key-rpm", 1.0, 5.0)]),
        (LimitSpec(requests_per_minute=0.5), [("key-rpm", 0.5 / 60, 1.0)]),
        (
            LimitSpec(requests_per_second=2, requests_per_minute=60, burst_size=3),
            [("key-rps", 2.0, 3.0), ("key-rpm", 1.0, 60.0)],
        ),
        (LimitSpec(tokens_per_minute=6000), [("key-tpm", 100.0, 6000.0)]),
        (LimitSpec(requests_per_second=0, tokens_per_minute=0, max_concurrent=0), []),
    ],
)
def test_buckets_are_shaped_as_written(spec, shapes):
    made = plan("per_key", spec)

    rates = [*made.requests, *([made.tokens] if made.tokens else [])]
    assert [(rate.name, rate.rate, rate.burst) for rate in rates] == shapes
    assert made.is_empty == (not shapes)


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        (LimitSpec(requests_per_second=1e-300), [("key-rps", 1e-6, 1.0)]),
        (LimitSpec(requests_per_second=1e308), [("key-rps", 1e12, 2e12)]),
        (LimitSpec(requests_per_minute=10**400), [("key-rpm", 1e12 / 60, 1e12)]),
        (LimitSpec(requests_per_second=1, burst_size=10**30), [("key-rps", 1.0, 1e12)]),
        (LimitSpec(tokens_per_minute=1e300), [("key-tpm", 1e12 / 60, 1e12)]),
        (LimitSpec(tokens_per_minute=1e-300), [("key-tpm", 1e-6 / 60, 1.0)]),
    ],
)
def test_absurd_limits_are_bounded(spec, shapes):
    test_buckets_are_shaped_as_written(spec, shapes)


def test_an_absurd_number_of_concurrent_requests_is_bounded():
    assert plan("per_key", LimitSpec(max_concurrent=10**30)).max_concurrent == 10**12


def test_the_policy_tells_quota_window_and_unit_in_the_order_of_asking():
    spec = LimitSpec(
        requests_per_second=10,
        requests_per_minute=60,
        burst_size=5,
        tokens_per_minute=900,
        max_concurrent=2,
    )

    assert plan("per_user", spec).policy == (
        '"user-concurrent";q=2;qu="concurrent-requests", "user-rps";q=5;w=1, '
        '"user-rpm";q=60;w=60, "user-tpm";q=900;qu="tokens";w=60'
    )


@pytest.mark.parametrize(
    ("own", "base", "expected"),
    [
        (LimitSpec(max_concurrent=1), None, LimitSpec(max_concurrent=1)),
        (None, LimitSpec(max_concurrent=1), LimitSpec(max_concurrent=1)),
        (None, None, LimitSpec()),
        (
            LimitSpec(max_concurrent=1),
            LimitSpec(requests_per_second=5, burst_size=9, tokens_per_minute=7, max_concurrent=3),
            LimitSpec(requests_per_second=5, burst_size=9, tokens_per_minute=7, max_concurrent=1),
        ),
        (  # another rate does not inherit a burst that was written for the base's
            LimitSpec(requests_per_second=100),
            LimitSpec(requests_per_second=5, burst_size=9),
            LimitSpec(requests_per_second=100),
        ),
        (  # 0 lifts the limit, None leaves it
            LimitSpec(requests_per_minute=0, tokens_per_minute=0),
            LimitSpec(requests_per_minute=5, tokens_per_minute=9, max_concurrent=2),
            LimitSpec(requests_per_minute=0, tokens_per_minute=0, max_concurrent=2),
        ),
        (
            LimitSpec(burst_size=3),
            LimitSpec(requests_per_second=5, burst_size=9),
            LimitSpec(requests_per_second=5, burst_size=3),
        ),
    ],
)
def test_a_keys_own_limits_go_over_those_of_every_key(own, base, expected):
    assert merged(own, base) == expected


def test_subjects_that_are_alike_share_a_plan_and_plans_are_remembered_within_bounds():
    base = LimitSpec(requests_per_minute=5)

    first = plan_of("per_key", LimitSpec(max_concurrent=1), base)
    assert plan_of("per_key", LimitSpec(max_concurrent=1), LimitSpec(requests_per_minute=5)) is first
    assert plan_of("per_user", LimitSpec(max_concurrent=1), base) != first

    for number in range(2, MAX_PLANS + 2):
        plan_of("per_key", LimitSpec(max_concurrent=number), base)
    again = plan_of("per_key", LimitSpec(max_concurrent=1), base)
    assert again == first
    assert again is not first
