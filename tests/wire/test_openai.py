import orjson
import pytest

from proxy.wire.openai import (
    encoded,
    error_event,
    function_of,
    name_of,
    objects,
    parsed,
    parsed_request,
    text_of,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"[1]", None),
        (b"", None),
        (b"{", None),
        (b"null", None),
        (b"[" * 99_999, None),
    ],
)
def test_only_objects_count(body, expected):
    assert parsed(body) == expected
    assert parsed_request(body) == expected


def test_half_a_character_in_an_answer_survives():
    chunk = rb'{"delta":{"content":"\ud83d"},"x":1}'

    assert encoded(parsed(chunk)) == chunk
    assert encoded({"content": "é"}) == '{"content":"é"}'.encode()


def test_numbers_that_json_does_not_have_are_read_from_answers_only():
    body = b'{"logprob":-Infinity}'

    assert encoded(parsed(body)) == b'{"logprob":null}'
    assert parsed_request(body) is None


def test_half_a_character_in_a_request_is_mended():
    body = rb'{"messages":[{"content":"cut \ud83d"}],"whole":"\ud83d\ude80 \u00e9","n":1.50}'

    found = parsed_request(body)

    assert found == {"messages": [{"content": "cut ?"}], "whole": "🚀 é", "n": 1.5}
    orjson.dumps(found)


@pytest.mark.parametrize(
    "body", [rb'{"a":"\ud83d", "b":NaN}', rb'{"a":"\ud83d"', b'{"a":"\\u0041' + b"[" * 5000]
)
def test_what_cannot_be_mended_is_no_request(body):
    assert parsed_request(body) is None


def test_nesting_too_deep_to_mend_is_no_request():
    assert parsed_request(b'{"a":"\\ud83d","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}") is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}, "c"], "a\nb"),
        ([{"type": "text", "text": 5}], ""),
        ({"text": "a"}, ""),
    ],
)
def test_the_text_of_a_content(content, text):
    assert text_of(content) == text


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ({"type": "function", "function": {"name": "f"}}, "f"),
        ({"name": "f", "parameters": {}}, "f"),
        ({"function": None}, ""),
        ({"function": {"name": None}}, ""),
        ({}, ""),
    ],
)
def test_a_tools_name(tool, name):
    assert name_of(tool) == name
    assert isinstance(function_of(tool), dict)


def test_the_objects_of_a_list():
    assert list(objects([{"a": 1}, None, "x", []])) == [{"a": 1}]
    assert list(objects({"a": 1})) == []


def test_an_error_inside_a_stream_is_one_that_clients_retry():
    written = error_event("The upstream broke off.", code="upstream_error")

    assert written == (
        b'data: {"error":{"message":"The upstream broke off.","type":"server_error","param":null,'
        b'"code":"upstream_error"}}\n\n'
    )
