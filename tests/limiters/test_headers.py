"""Header lines as OpenAI's clients and the IETF draft read them."""

import pytest

from proxy.limiters.headers import go_duration, grant_lines, refusal_lines
from proxy.limiters.spec import LimitSpec, plan

KEY = plan("per_key", LimitSpec(requests_per_minute=60, tokens_per_minute=6000, max_concurrent=4))
GLOBAL = plan("global", LimitSpec(requests_per_second=10))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.0000001, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (0.9991, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.999, "59.999s"),
        (360, "6m0s"),
        (90.25, "1m30.25s"),
        (3600, "1h0m0s"),
        (90061.5, "25h1m1.5s"),
    ],
)
def test_durations_are_written_as_go_reads_them(seconds, text):
    assert go_duration(seconds) == text


def test_every_policy_is_told_and_the_tightest_for_openai():
    lines = grant_lines([(GLOBAL, 1, [19.0]), (KEY, 1, [12.0, 5400.0])])

    assert lines == (
        b"x-ratelimit-limit-requests: 60\r\n"
        b"x-ratelimit-remaining-requests: 12\r\n"
        b"x-ratelimit-reset-requests: 48s\r\n"
        b"x-ratelimit-limit-tokens: 6000\r\n"
        b"x-ratelimit-remaining-tokens: 5400\r\n"
        b"x-ratelimit-reset-tokens: 6s\r\n"
        b'ratelimit-policy: "global-rps";q=20;w=2, '
        b'"key-concurrent";q=4;qu="concurrent-requests", "key-rpm";q=60;w=60, '
        b'"key-tpm";q=6000;qu="tokens";w=60\r\n'
        b'ratelimit: "global-rps";r=19;t=1, "key-concurrent";r=3, "key-rpm";r=12;t=48, '
        b'"key-tpm";r=5400;t=6\r\n'
    )


def test_the_tightest_of_several_token_limits_is_told_to_openais_clients():
    user = plan("per_user", LimitSpec(tokens_per_minute=9000))

    for readings in ([(KEY, 1, [1.0, 5.0]), (user, 1, [80.0])], [(user, 1, [80.0]), (KEY, 1, [1.0, 5.0])]):
        assert b"x-ratelimit-remaining-tokens: 5\r\n" in grant_lines(readings)


def test_nothing_is_said_where_nothing_is_limited():
    assert grant_lines([]) == b""
    assert grant_lines([(plan("per_key", LimitSpec(max_concurrent=0)), 1, [])]) == b""


def test_a_debt_shows_as_nothing_left():
    lines = grant_lines([(KEY, 1, [30.0, -600.0])])

    assert b"x-ratelimit-remaining-tokens: 0\r\n" in lines
    assert b"x-ratelimit-reset-tokens: 1m6s\r\n" in lines


@pytest.mark.parametrize(
    ("wait", "seconds", "milliseconds"), [(0.0004, 1, 1), (0.15, 1, 150), (1.0, 1, 1000), (1.0001, 2, 1001)]
)
def test_retry_after_is_never_zero_and_never_early(wait, seconds, milliseconds):
    lines = refusal_lines([(KEY, 4, [0.0, 0.0])], wait)

    assert lines.endswith(b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (seconds, milliseconds))


def test_no_reset_lies_after_retry_after():
    lines = refusal_lines([(GLOBAL, 9, [3.0]), (KEY, 4, [0.0, 100.0])], 1.2)

    assert (
        b'ratelimit: "global-rps";r=3;t=2, "key-concurrent";r=0, "key-rpm";r=0;t=2, "key-tpm";r=100;t=2\r\n'
        in lines
    )
