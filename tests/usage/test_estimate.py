"""Guesses where an answer counts nothing."""

import pytest

from proxy.usage.estimate import estimate
from proxy.usage.meter import Metered
from proxy.usage.tokens import Usage


@pytest.mark.parametrize(
    ("metered", "request_bytes", "expected"),
    [
        (Metered(), 0, Usage(0, 0, 0)),
        (Metered(), 401, Usage(101, 0, 101)),
        (Metered(deltas=50, text_bytes=230), 400, Usage(100, 50, 150)),
        (Metered(deltas=5, text_bytes=800), 400, Usage(100, 200, 300)),  # 40 tokens an event
        (Metered(text_bytes=801), 400, Usage(100, 201, 301)),  # JSON, or a cut within it
    ],
)
def test_estimates(metered, request_bytes, expected):
    assert estimate(metered, request_bytes) == expected
