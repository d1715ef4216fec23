from math import e

import pytest

from proxy.balancers.recent import DECAY_SECONDS, Recent


def test_counts_fade_with_time() -> None:
    recent = Recent()
    for _ in range(10):
        recent.add("a", 0.0)

    recent.add("b", DECAY_SECONDS)

    assert recent.of("a") == pytest.approx(10 / e)
    assert recent.of("b") == 1.0
    assert recent.of("nobody") == 0.0


@pytest.mark.parametrize("start", [0.0, 1e6, 1e9])
def test_counts_are_right_however_long_it_runs(start: float) -> None:
    recent, now = Recent(), start

    for _ in range(5000):
        now += DECAY_SECONDS / 10
        recent.add("a", now)

    assert recent.of("a") == pytest.approx(1 / (1 - e**-0.1), rel=0.01)


def test_names_that_have_long_been_gone_are_forgotten() -> None:
    recent = Recent()
    recent.add("gone", 0.0)

    for n in range(300):
        recent.add("here", n * DECAY_SECONDS)

    assert len(recent) == 1
