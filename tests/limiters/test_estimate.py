"""Guessing a request's tokens without reading it."""

import json

import pytest

from proxy.limiters.estimate import HEAD_BYTES, MAX_COMPLETION_TOKENS, MAX_HITS, TAIL_BYTES, estimate_tokens

LONG = "word " * 60_000
MESSAGES = [{"role": "user", "content": "hello"}]


def completion(body: bytes) -> int:
    return estimate_tokens(body) - len(body) // 4


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"max_tokens": 77}, 77),
        ({"max_completion_tokens": 77}, 77),
        ({"max_output_tokens": 77}, 77),
        ({"model": "m", "max_tokens": 77, "messages": LONG}, 77),
        ({"messages": LONG, "max_tokens": 77, "tools": "t" * 30_000}, 77),
        ({"max_tokens": 32_000}, MAX_COMPLETION_TOKENS),
        ({"max_tokens": None}, 0),
        ({"max_tokens": "77"}, 0),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": 7.5}, 0),
        ({"max_tokens": 1e30}, 0),
        ({"max_retries": 5, "max_tokens": 77}, 77),
        ({"messages": MESSAGES}, 0),
        ({"messages": [{"content": '"max_tokens": 9000'}]}, 0),
        ({"messages": [{"content": '"max_tokens": 9000'}], "max_tokens": 77}, 77),
        ({"tools": [{"properties": {"max_tokens": {"type": "integer"}}}], "max_tokens": 77}, 77),
    ],
)
def test_the_limit_on_the_answer_is_found(body, expected):
    assert completion(json.dumps(body).encode()) == expected
    assert completion(json.dumps(body, separators=(",", ":")).encode()) == expected
    assert completion(json.dumps(body, indent=8).encode()) == expected


@pytest.mark.parametrize("body", [b"", b'"max_tokens":', b'"max_tokens": 1', b'"max_', b"\xff\xfe" * 100])
def test_whatever_comes_is_guessed(body):
    assert estimate_tokens(body) == len(body) // 4


def test_the_prompt_counts_by_its_length():
    assert estimate_tokens(b"x" * 4000) == 1000


@pytest.mark.parametrize("shift", range(40))
def test_a_key_across_the_edge_of_the_first_window_is_found(shift):
    body = b" " * (HEAD_BYTES - shift) + b'"max_tokens": 77}'

    assert completion(body) == 77


def test_the_search_is_bounded():
    in_the_middle = b" " * HEAD_BYTES + b'"max_tokens": 77,' + b" " * TAIL_BYTES
    repeated = b'"max_tokens": 77,' + b'"max_x": 1,' * MAX_HITS

    assert completion(in_the_middle) == 0
    assert completion(repeated) == 0
