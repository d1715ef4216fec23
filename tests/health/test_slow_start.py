import pytest

from proxy.health.slow_start import share


@pytest.mark.parametrize(
    ("came_back", "now", "duration", "expected"),
    [
        (None, 5.0, 10.0, 1.0),
        (5.0, 5.0, 0.0, 1.0),
        (5.0, 5.0, 10.0, 0.1),
        (5.0, 10.0, 10.0, 0.5),
        (5.0, 15.0, 10.0, 1.0),
        (5.0, 500.0, 10.0, 1.0),
    ],
)
def test_share_grows_from_a_tenth_to_all(
    came_back: float | None, now: float, duration: float, expected: float
) -> None:
    assert share(came_back, now, duration) == pytest.approx(expected)
