"""A window forgets, between half its length and all of it after the fact."""

import pytest

from proxy.health.window import Window


@pytest.mark.parametrize(
    ("later", "remembered"), [(0.0, 1), (4.9, 1), (5.0, 1), (9.9, 1), (10.1, 0), (1000.0, 0)]
)
def test_what_was_counted_is_forgotten_in_time(later: float, remembered: int) -> None:
    window = Window(10.0)
    window.count(100.0, failed=True)

    window.count(100.0 + later, failed=False)

    assert window.total == 1 + remembered
    assert window.failed == remembered


def test_clear_forgets_at_once() -> None:
    window = Window(10.0)
    window.count(1.0, failed=True)

    window.clear()

    assert (window.total, window.failed) == (0, 0)
