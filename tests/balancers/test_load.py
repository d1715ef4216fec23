import pytest

from proxy.balancers.load import DECAY_SECONDS, FAILURE_SECONDS, Load


def test_counts_what_began_and_ended() -> None:
    load = Load()

    load.begin()
    load.begin()
    load.end()

    assert (load.in_flight, load.began, load.ended) == (1, 2, 1)


def test_a_slow_answer_raises_the_average_at_once() -> None:
    load = Load()
    load.measure(0.1, 0.0)

    load.measure(5.0, 0.1)

    assert load.latency == 5.0


def test_fast_answers_lower_it_little_by_little() -> None:
    load = Load()
    load.measure(5.0, 0.0)

    seen = []
    for n in range(1, 8):
        load.measure(0.1, n * DECAY_SECONDS)
        seen.append(load.latency)

    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(0.1 + 4.9 / 2.718, rel=0.01)
    assert seen[-1] == pytest.approx(0.1, rel=0.1)


def test_it_fades_with_time() -> None:
    load = Load()
    load.measure(1.0, 0.0)

    assert load.latency_at(0.0) == 1.0
    assert load.latency_at(DECAY_SECONDS) == pytest.approx(0.368, abs=0.001)


def test_a_failure_counts_as_slow() -> None:
    load = Load()
    load.measure(0.1, 0.0)

    load.fail(0.0)

    assert load.latency == FAILURE_SECONDS
    assert load.failed == 1
