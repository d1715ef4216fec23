"""Statuses and bodies as real servers send them."""

import pytest

from proxy.health.blame import BLAME_BYTES, outcome_of
from proxy.health.outcome import Outcome

CASES = [
    (200, b"", Outcome.OK),
    (204, b"", Outcome.OK),
    (302, b"", Outcome.OK),
    (400, b"", Outcome.CLIENT_ERROR),
    (401, b"", Outcome.CLIENT_ERROR),
    (404, b"", Outcome.CLIENT_ERROR),
    (422, b'{"detail":[]}', Outcome.CLIENT_ERROR),
    (424, b'{"error":"x","error_type":"generation"}', Outcome.CLIENT_ERROR),
    (429, b'{"error":"Model is overloaded","error_type":"overloaded"}', Outcome.OVERLOADED),
    (503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', Outcome.OVERLOADED),
    (529, b"", Outcome.OVERLOADED),
    (500, b"", Outcome.SERVER_ERROR),
    (500, b"Internal Server Error", Outcome.SERVER_ERROR),
    (500, b'{"error":{"message":"cannot schedule new futures after shutdown"}}', Outcome.SERVER_ERROR),
    (502, b"<html>bad gateway</html>", Outcome.SERVER_ERROR),
    (500, b'{"error":{"message":"This model\'s maximum context length is 4096"}}', Outcome.CLIENT_ERROR),
    (500, b'{"error":{"type":"exceed_context_size_error","n_ctx":512}}', Outcome.CLIENT_ERROR),
    (500, b"ValueError: Prompt length of 5016 is longer than the maximum model length", Outcome.CLIENT_ERROR),
    (
        500,
        b'{"error":{"message":"[json.exception.parse_error.101] parse error","type":"server_error"}}',
        Outcome.CLIENT_ERROR,
    ),
]


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_blames_whoever_did_it(status: int, body: bytes, expected: Outcome) -> None:
    assert outcome_of(status, body) is expected


def test_looks_at_the_beginning_only() -> None:
    assert outcome_of(500, b" " * BLAME_BYTES + b"context length") is Outcome.SERVER_ERROR
