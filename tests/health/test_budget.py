from hypothesis import given
from hypothesis import strategies as st

from proxy.health.budget import MIN_EXTRAS, WINDOW_SECONDS, Budget


def spend_all(budget: Budget, now: float) -> int:
    spent = 0
    while budget.spend(now):
        spent += 1
    return spent


def test_a_quiet_gateway_has_a_handful() -> None:
    assert spend_all(Budget(0.2), 0.0) == MIN_EXTRAS


def test_grows_with_the_requests() -> None:
    budget = Budget(0.2)
    for n in range(1000):
        budget.earn(n / 100)

    assert spend_all(budget, 10.0) == MIN_EXTRAS + 200


def test_what_was_spent_comes_back_with_time() -> None:
    budget = Budget(0.2)
    spend_all(budget, 0.0)

    assert not budget.spend(1.0)
    assert spend_all(budget, 2 * WINDOW_SECONDS) == MIN_EXTRAS


def test_old_requests_buy_nothing() -> None:
    budget = Budget(1.0)
    for _ in range(1000):
        budget.earn(0.0)

    assert spend_all(budget, 3 * WINDOW_SECONDS) == MIN_EXTRAS


@given(st.lists(st.booleans(), max_size=300), st.floats(0.0, 1.0))
def test_never_more_than_its_share(steps: list[bool], share: float) -> None:
    budget, earned, spent = Budget(share), 0, 0

    for is_request in steps:
        if is_request:
            budget.earn(1.0)
            earned += 1
        else:
            spent += budget.spend(1.0)

    assert spent <= MIN_EXTRAS + share * earned + 1
