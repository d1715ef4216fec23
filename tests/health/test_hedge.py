import pytest

from proxy.health.hedge import MIN_HEDGES, HedgePolicy, HedgeSettings


def test_without_settings_nothing_is_hedged() -> None:
    policy = HedgePolicy(None)

    assert policy.began(0.0) is None
    assert not policy.may_start(0.0)


def test_at_most_a_share_of_the_requests_is_hedged() -> None:
    policy = HedgePolicy(HedgeSettings(after=2.0, budget=0.05))
    started = 0

    for _ in range(1000):
        assert policy.began(0.0) == 2.0
        started += policy.may_start(0.0)

    assert started == pytest.approx(MIN_HEDGES + 0.05 * 1000, abs=4)


def test_a_quiet_gateway_may_hedge_now_and_then() -> None:
    policy = HedgePolicy(HedgeSettings())
    policy.began(0.0)

    assert policy.may_start(0.0)
    assert not policy.may_start(1.0)
    policy.began(300.0)
    assert policy.may_start(300.0)
