"""What a window says, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bench.client import Answer
from proxy.bench.figures import Spread, figures, jitters_of, percentile


def test_an_even_stream_has_no_jitter():
    assert jitters_of([0.0, 0.5, 1.0, 1.5]) == [0.0, 0.0, 0.0]


def test_jitter_is_how_far_a_gap_is_from_the_usual_one():
    assert jitters_of([0.0, 1.0, 2.0, 5.0, 6.0]) == [0.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("arrivals", [[], [1.0]])
def test_fewer_than_two_pieces_have_no_gap(arrivals):
    assert jitters_of(arrivals) == []


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, 0.0), ([3.0], 99, 3.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), (list(range(1, 101)), 99, 99)],
)
def test_a_percentile_is_a_value_that_was_measured(values, percent, expected):
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 100))
def test_so_many_percent_do_not_exceed_it(values, percent):
    found = percentile(values, percent)

    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6


def test_a_window_counts_what_fell_into_it():
    answers = [
        Answer(asked=0.0, first_byte=0.5, ended=0.9, arrivals=[0.5, 0.9], events=[1, 1]),  # before it
        Answer(asked=0.9, first_byte=1.1, ended=1.9, arrivals=[1.1, 1.5, 1.9], events=[1, 2, 3]),
        Answer(asked=1.0, first_byte=1.5, ended=3.0, arrivals=[1.5, 3.0], events=[4, 5]),  # ends behind it
    ]

    found = figures(answers, 1.0, 2.0, cpu=0.5)

    assert found.requests == 1
    assert found.tokens == 1 + 2 + 3 + 4
    assert found.total_p50 == pytest.approx(1000.0)
    assert found.first_p99 == pytest.approx(200.0)
    assert found.cpu_per_request_us == pytest.approx(500_000)
    assert found.cpu_per_1000_tokens == pytest.approx(5000.0)  # half a core for ten tokens/s
    assert found.tokens_per_second == 10


def test_an_empty_window_divides_by_nothing():
    found = figures([], 0.0, 1.0, cpu=0.0)

    assert (found.requests_per_second, found.cpu_per_request_us, found.cpu_per_1000_tokens) == (0, 0, 0)


def test_a_spread_is_the_median_and_the_ends():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
