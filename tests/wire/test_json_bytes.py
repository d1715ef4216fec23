import json
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.json_bytes import MAX_CANDIDATES, MAX_PARSED, Peek, find_top_level, peek, replace_model

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.sampled_from(["model", "stream", "messages", "tools", 'x"model', "m\\", "user"]) | TEXT
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT | st.sampled_from(['"model":"x"'])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=6).filter(
    lambda body: sum(key.lower() == "model" for key in body) < 2
)
# NaN and a lone surrogate are what orjson refuses, so these bodies are walked.
ODD = ["", ', "odd": NaN', r', "odd": "\ud83d"']


@given(BODIES, st.booleans(), st.sampled_from([None, 2]), st.sampled_from(ODD))
def test_what_is_seen_is_what_a_parser_sees(body, ascii_only, indent, odd):
    raw = json.dumps(body, ensure_ascii=ascii_only, indent=indent)
    if body:
        raw = raw[:-1] + odd + "}"

    seen = peek(raw.encode(), "user")

    model, stream = body.get("model"), body.get("stream")
    assert seen.model == (model if isinstance(model, str) else None)
    assert seen.stream == (stream if isinstance(stream, bool) else None)
    assert not seen.ambiguous or any(key != "model" and key.lower() == "model" for key in body)
    if not isinstance(body.get("user"), dict | list):
        assert seen.values.get("user") == body.get("user")


@given(BODIES, TEXT, TEXT, st.sampled_from([None, 2]), st.sampled_from(ODD), st.integers(0, 5))
def test_only_the_model_is_replaced(body, old, new, indent, odd, place):
    members = [(key, value) for key, value in body.items() if key.lower() != "model"]
    members.insert(place, ("model", old))
    raw = (json.dumps(dict(members), indent=indent)[:-1] + odd + "}").encode()

    seen = peek(raw)

    assert seen.model == old
    assert seen.model_span is not None
    replaced = replace_model(raw, seen.model_span, new.encode())
    start, end = seen.model_span
    assert replaced.startswith(raw[:start])
    assert replaced.endswith(raw[end:])
    assert list(json.loads(replaced)) == list(json.loads(raw))
    assert json.loads(replaced)["model"] == new


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "members",
    [
        '"model": "a", "messages": [], "model": "b"',
        '"messages": [], "model": "a", "model": "b"',
        '"model": "a", "messages": [{"model": "c"}], "mod\\u0065l": "b"',
        '"mod\\u0065l": "a", "messages": [], "model": "b"',
        '"model": "a", "Model": "b"',
        '"messages": [], "model": "a", "MODEL": "b"',
        '"model": "a", "model": 5',
        '"model": {}, "model": "a"',
    ],
)
def test_two_models_are_one_too_many(members, odd):
    assert peek(f"{{{members}{odd}}}".encode()).ambiguous


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"m","stream":true}', "m", True),
        (b' \r\n{\t"model" : "m" ,\n"stream" : false } ', "m", False),
        (b'{"stream":true,"model":"m"}', "m", True),
        (rb'{"model":"Qwen\/Qwen3"}', "Qwen/Qwen3", None),
        (rb'{"a":1,"mod\u0065l":"m"}', "m", None),
        (rb'{"\u006Dodel":"m"}', "m", None),
        (b'{"messages":[{"content":"\\"model\\":\\"x\\""}],"model":"m"}', "m", None),
        (b'{"tools":[{"model":"x"}],"model":"m"}', "m", None),
        (b'{"model":"m","tools":[{"model":"x","stream":true}]}', "m", None),
        (b'{"model":"m","stream":false,"stream":true}', "m", True),
        (b'{"model":null,"stream":"yes"}', None, None),
        (b'{"model":["m"]}', None, None),
        (b'{"x":{"model":"m"}}', None, None),
        (b'{"x":"model","y":["model","m"]}', None, None),
        (b'["model","m"]', None, None),
        (b'[{"model":"m"}]', None, None),
        (b'[{"model":"m"},NaN]', None, None),
        (b'{"stream":truth,"model":"m"}', "m", None),
        (b'{"stream":[NaN],"model":"m"}', "m", None),
        (b'"model"', None, None),
        (b"", None, None),
        (b"{}", None, None),
        (b"{", None, None),
        (b'{"model":"m"', "m", None),
        (b'{"model":"m" "stream":true}', "m", True),
        (b'{"model":"m', None, None),
        (b'{"model":"\xff"}', "\ufffd", None),
    ],
)
def test_a_table_of_bodies(body, model, stream):
    seen = peek(body)

    assert (seen.model, seen.stream, seen.ambiguous) == (model, stream, False)


def test_many_look_alikes_do_not_hide_the_model():
    inner = [{"model": "x"}] * (MAX_CANDIDATES + 1)

    assert peek(orjson.dumps({"model": "first", "tools": inner})).model == "first"
    assert peek(orjson.dumps({"a": 1, "model": "middle", "tools": inner})).model == "middle"
    assert peek(orjson.dumps({"tools": inner, "model": "last"})).model == "last"


def test_a_large_body_is_walked():
    body = orjson.dumps({"messages": [{"content": 'x"\\' * MAX_PARSED}], "user": "u", "model": "m"})

    seen = peek(body, "user")

    assert (seen.model, seen.values) == ("m", {"user": "u"})
    assert body[slice(*seen.model_span)] == b'"m"'


def test_nesting_beyond_what_a_parser_takes_is_walked():
    deep = b"[" * (2 * sys.getrecursionlimit())
    body = b'{"x":' + deep + b"1" + deep.replace(b"[", b"]") + b',"model":"m"}'

    assert peek(body).model == "m"


def test_a_body_made_of_brackets_is_given_up():
    body = b'{"a":[' + b"[]," * 1_400_000 + b'[]],"model":"m"}'

    seen = peek(body)

    assert seen.ambiguous
    assert seen.model is None


def test_top_level_members_are_found():
    body = b'{"model":"m","max_tokens":10,"x":{"max_tokens":99},"user":"u"}'

    assert find_top_level(body, ("max_tokens", "user", "seed")) == {"max_tokens": 10, "user": "u"}


def test_a_new_name_is_written_as_json():
    body = b'{"model":"m"}'

    assert replace_model(body, (9, 12), 'a"b\\é'.encode()) == '{"model":"a\\"b\\\\é"}'.encode()


@given(st.binary(max_size=80) | TEXT.map(lambda text: f'{{"model":"{text}"'.encode()))
def test_no_bytes_are_too_odd(body):
    peek(body)


def wide(text):
    return text.encode("utf-16-le")


@pytest.mark.parametrize(
    "body",
    [
        wide('{"model":"forbidden","x":"') + b'"x,"model":"allowed"yz' + wide('"}'),
        b'{"model":"allowed"}\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nother\r\n--b--',
        b'{"model":"allowed"}&model=forbidden',
        b'{"model":"allowed"}{"model":"forbidden"}',
    ],
)
def test_a_body_that_others_read_as_something_else_is_ambiguous(body):
    assert peek(body).ambiguous


@pytest.mark.parametrize(
    "body",
    [
        bytes(range(256)),
        b"\0" * 1000,
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b\r\n\r\nRIFF\0\r\n--b--',
    ],
    ids=["every byte", "nul", "gzip", "form with audio"],
)
def test_a_body_that_is_no_object_names_no_model(body):
    assert peek(body) == Peek()
