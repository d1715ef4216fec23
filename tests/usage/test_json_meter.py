"""The meter of answers that are one JSON document."""

from itertools import combinations_with_replacement

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.usage.ends import WHOLE_BYTES
from proxy.usage.json_meter import JsonMeter
from proxy.usage.meter import Metered
from proxy.usage.sse_meter import SseMeter
from proxy.usage.tokens import Usage

FAKE = '","usage":{"prompt_tokens":1,"completion_tokens":1},"'
CHAT = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": FAKE, "tool_calls": []}}],
    "usage": {"prompt_tokens": 7, "total_tokens": 10, "completion_tokens": 3},
    "prompt_logprobs": None,
}
LONG = "word " * 10_000


def metered(*pieces: bytes) -> Metered:
    meter = JsonMeter()
    for piece in pieces:
        meter.feed(piece)
    return meter.finish()


def test_a_chat_answer_is_read():
    assert metered(orjson.dumps(CHAT)) == Metered(
        usage=Usage(7, 3, 10), terminal=True, response_id="chatcmpl-1"
    )


def test_same_result_however_two_cuts_fall():
    body = orjson.dumps(CHAT)
    expected = metered(body)
    for first, second in combinations_with_replacement(range(0, len(body) + 1, 3), 2):
        assert metered(body[:first], body[first:second], body[second:]) == expected


def test_every_cut_off_answer_is_unfinished():
    body = orjson.dumps(CHAT)
    for end in range(len(body)):
        found = metered(body[:end])

        assert (found.terminal, found.usage) == (False, None)


@pytest.mark.parametrize("blanks", [b"", b"\r\n \t"])
@pytest.mark.parametrize("cut", [7, 4096, 10**9])
def test_usage_at_the_end_of_a_long_answer_is_found(cut, blanks):
    body = orjson.dumps({**CHAT, "choices": [{"message": {"content": LONG + FAKE}}]}) + blanks

    found = metered(*(body[at : at + cut] for at in range(0, len(body), cut)))

    assert (found.usage, found.terminal, found.response_id) == (Usage(7, 3, 10), True, "chatcmpl-1")


def test_usage_at_the_beginning_of_a_long_answer_is_found():
    body = orjson.dumps({"usage": CHAT["usage"], "choices": [{"message": {"content": LONG + FAKE}}]})

    assert metered(body).usage == Usage(7, 3, 10)


def test_usage_within_arguments_at_either_end_of_a_long_answer_is_not_the_servers():
    call = {"function": {"arguments": {"usage": {"prompt_tokens": 1}}}}

    at_end = orjson.dumps({"id": "c", "choices": [{"message": {"content": LONG, "tool_calls": [call]}}]})
    at_start = orjson.dumps({"id": "c", "choices": [{"message": {"tool_calls": [call], "content": LONG}}]})

    assert metered(at_end).usage is None
    assert metered(at_start).usage is None


@pytest.mark.parametrize(
    "start", [b'{"usage":null,', b'{"usage":{"prompt_tokens":7', b'{"a\\"usage":{"prompt_tokens":7},', b"{"]
)
def test_a_long_answer_without_usage_that_can_be_read_has_none(start):
    assert metered(start + b'"x":"' + b"A" * 20_000 + rb'","y\"usage":{"prompt_tokens":7}}').usage is None


def test_usage_within_arguments_of_a_short_answer_is_not_the_servers():
    call = {"function": {"name": "f", "arguments": {"usage": {"prompt_tokens": 1}}}}

    found = metered(
        orjson.dumps({"usage": CHAT["usage"], "choices": [{"message": {"tool_calls": [call, call]}}]})
    )

    assert (found.usage, found.tool_calls) == (Usage(7, 3, 10), 2)


def test_what_is_kept_of_a_long_answer_is_bounded():
    meter = JsonMeter()
    for _ in range(1000):
        meter.feed(b"[" * 4096)

    assert len(meter._ends.head) + len(meter._ends.tail) <= WHOLE_BYTES


@pytest.mark.parametrize(
    ("body", "terminal", "error"),
    [
        (b"", False, False),
        (b"<html>", False, False),
        (b"[]", True, False),
        (b"null", True, False),
        (b'{"error":{"message":"x"}}', True, True),
        (b'{"error":"text"}', True, True),
        (b'{"detail":"Not Found"}', True, False),
        (b"[" * 2000, False, False),
    ],
)
def test_answers_without_usage(body, terminal, error):
    assert metered(body) == Metered(terminal=terminal, error=error)


def test_text_is_measured_where_there_is_no_usage():
    body = {"choices": [{"message": {"content": "Größe", "reasoning": "ab"}}, {"text": "abc"}]}

    assert metered(orjson.dumps(body)).text_bytes == 12
    assert metered(orjson.dumps({"choices": [{"text": LONG}]})).text_bytes >= len(LONG)
    assert metered(orjson.dumps({"data": [{"embedding": [0.25] * 9999}]})).text_bytes == 0


def test_anthropics_tool_calls_are_counted():
    body = {"type": "message", "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "name": "f"}]}

    assert metered(orjson.dumps(body)).tool_calls == 1


def test_tool_calls_of_the_responses_api_are_counted():
    calls = [{"type": "function_call", "name": "f"}, {"type": "custom_tool_call", "name": "g"}]

    assert metered(orjson.dumps({"output": [{"type": "message"}, *calls]})).tool_calls == 2


KEYS = (
    "usage", "choices", "message", "delta", "type", "id", "content", "timings", "details", "tool_calls",
    "function", "name", "index", "response", "output", "error", "prompt_tokens", "finish_reason", "token",
    "completion_tokens", "cache_read_input_tokens", "prompt_n", "content_block", "generated_text",
    "arguments",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=6)
    ),
)


@settings(deadline=None)
@given(JSON)
def test_no_document_raises(document):
    assert metered(orjson.dumps(document), b" ") == metered(orjson.dumps(document))


@settings(deadline=None)
@given(st.lists(JSON, max_size=8))
def test_no_event_raises(documents):
    meter = SseMeter()
    for document in documents:
        meter.feed(b"data: " + orjson.dumps(document) + b"\n\n")

    assert meter.finish().events == len(documents)
