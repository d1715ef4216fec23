"""Active checks flip the state only after enough of one kind in a row."""

import pytest

from proxy.health.thresholds import Thresholds, ThresholdSettings

# checks (o good, x bad) with healthy=2, unhealthy=3, and the state after each (U up, d down)
CASES = [
    ("", ""),
    ("o", "U"),
    ("xx", "UU"),
    ("xxx", "UUd"),
    ("xxoxxx", "UUUUUd"),
    ("xxxo", "UUdd"),
    ("xxxoo", "UUddU"),
    ("xxxoxoo", "UUddddU"),
    ("xxxooxxx", "UUddUUUd"),
]


@pytest.mark.parametrize(("checks", "states"), CASES)
def test_flips_after_enough_in_a_row(checks: str, states: str) -> None:
    thresholds = Thresholds(ThresholdSettings(healthy=2, unhealthy=3))
    seen = ""

    for check in checks:
        before = thresholds.is_up
        changed = thresholds.record(check == "o")
        assert changed is (thresholds.is_up is not before)
        seen += "U" if thresholds.is_up else "d"

    assert seen == states


def test_is_up_before_the_first_check() -> None:
    assert Thresholds(ThresholdSettings()).is_up
