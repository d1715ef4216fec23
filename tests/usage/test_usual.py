"""The short way to a usual answer's usage says the same as the whole parse, or nothing."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.answer import MAX_ID_CHARS, has_error, response_id, started_calls
from proxy.usage.tokens import MAX_TOKENS, Usage, usage_from_object
from proxy.usage.usual import usual

COUNTS = st.one_of(
    st.integers(0, 9), st.sampled_from([None, -1, 2.0, True, "3", MAX_TOKENS, MAX_TOKENS + 1, [], {}])
)
NAMES = st.sampled_from(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cost"),
        *("cached_tokens", "reasoning_tokens", "cache_read_input_tokens", "prompt_cache_hit_tokens"),
    ]
)
DETAILS = st.one_of(
    COUNTS, st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "audio"]), COUNTS)
)
DETAIL_NAMES = st.sampled_from(
    [f"{kind}_tokens_details" for kind in ("prompt", "completion", "input", "output")]
)
USAGE = st.builds(
    lambda usual, others, details: {**usual, **others, **details},
    st.just({"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}) | st.just({}),
    st.dictionaries(NAMES, COUNTS, max_size=3),
    st.dictionaries(DETAIL_NAMES, DETAILS, max_size=2),
)
ODD = st.sampled_from([None, "", "error", "message", {}, {"message": "no"}, [1], 0, "x" * (MAX_ID_CHARS + 1)])
CALLS = st.sampled_from([None, [], [{"id": "1", "function": {"name": "ls", "arguments": "{}"}}], [None], {}])
MESSAGES = st.builds(lambda calls: {"content": "hm", "tool_calls": calls}, CALLS) | ODD
CHOICES = st.lists(st.dictionaries(st.sampled_from(["message", "delta", "index"]), MESSAGES), max_size=2)
MEMBERS = ["id", "error", "type", "response", "message", "output", "content", "content_block"]
ANSWERS = st.builds(
    lambda usage, rest, choices: {**rest, "choices": choices, "usage": usage},
    USAGE | ODD,
    st.dictionaries(st.sampled_from(MEMBERS), ODD, max_size=3),
    CHOICES | ODD,
)


@given(ANSWERS)
def test_what_is_found_is_what_the_whole_parse_finds(document):
    found = usual(orjson.dumps(document))

    if found is not None:
        assert found == (usage_from_object(document["usage"]), response_id(document))
        assert not has_error(document)
        assert not list(started_calls(document))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3}, Usage(7, 3, 10)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7, 0, 7)),  # embeddings
        (
            {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": None},
            Usage(7, 3, 10),  # vLLM
        ),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "total_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
            },
            Usage(7, 3, 10, 4, 2),  # OpenAI
        ),
    ],
)
def test_usual_answers_are_read(usage, expected):
    assert usual(orjson.dumps({"id": "one", "usage": usage})) == (expected, "one")


@given(ANSWERS, st.integers(0), st.binary(min_size=1, max_size=2))
def test_no_byte_out_of_place_does_any_harm(document, at, others):
    raw = orjson.dumps({"id": "chatcmpl-é", **document})
    at %= len(raw)

    usual(raw[:at] + others + raw[at + 1 :])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"usage":{"prompt_tokens":1,"total_tokens":1}',
        b'{"x":' + b"[" * 100_000,
        b'{"id":"\xff","usage":{"prompt_tokens":1,"total_tokens":1}}',
    ],
)
def test_what_is_no_usual_answer_is_left_to_others(document):
    assert usual(document) is None
