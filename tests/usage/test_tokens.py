"""Counts in every dialect, and counts that are none."""

import pytest

from proxy.usage.tokens import (
    MAX_TOKENS,
    Usage,
    usage_from_details,
    usage_from_headers,
    usage_from_object,
    usage_from_timings,
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(7, 3, 10)),
        ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 3, 10)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7, 0, 7)),
        ({"total_tokens": 9, "completion_tokens": 3}, Usage(6, 3, 9)),
        ({"completion_tokens": 3}, Usage(0, 3, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 12}, Usage(7, 3, 12)),
        ({"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(7, 0, 7, cached=4)),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, Usage(7, 0, 7)),
        ({"prompt_tokens": 7, "prompt_cache_hit_tokens": 4}, Usage(7, 0, 7, cached=4)),
        ({"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 4}},
         Usage(0, 7, 7, reasoning=4)),
        ({"completion_tokens": 7, "reasoning_tokens": 4}, Usage(0, 7, 7, reasoning=4)),
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3, 10)),
        ({"input_tokens": 1, "output_tokens": 3, "cache_read_input_tokens": 4,
          "cache_creation_input_tokens": 2},
         Usage(7, 3, 10, cached=4)),
        ({}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": MAX_TOKENS + 1}, None),
        ({"prompt_tokens": 1.5}, None),
    ],
)  # fmt: skip
def test_usage_objects(found, expected):
    assert usage_from_object(found) == expected


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ({"prompt_n": 5, "predicted_n": 3}, Usage(5, 3, 8)),
        ({"prompt_n": 5, "predicted_n": 3, "cache_n": 2}, Usage(7, 3, 10, cached=2)),
        ({"prompt_n": 5}, None),
    ],
)
def test_timings(timings, expected):
    assert usage_from_timings(timings) == expected


def test_details():
    assert usage_from_details({"generated_tokens": 3, "input_length": 7}) == Usage(7, 3, 10)
    assert usage_from_details({"generated_tokens": 3}) is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"X-Prompt-Tokens", b" 7"), (b"x-generated-tokens", b"3")], Usage(7, 3, 10)),
        ([(b"x-prompt-tokens", b"7"), (b"x-compute-tokens", b"1"), (b"x-generated-xxxxxx", b"1")], None),
        ([(b"x-prompt-tokens", b"-7"), (b"x-generated-tokens", b"3")], None),
        ([(b"x-prompt-tokens", b"7" * 30), (b"x-generated-tokens", b"3")], None),
        ([], None),
    ],
)
def test_headers(headers, expected):
    assert usage_from_headers(headers) == expected
