import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.tool_calls.coerce import conform, decode, encode, may_be_other, object_text
from proxy.adapters.tool_calls.tools import Schema

ALL = frozenset({"null", "integer", "number", "boolean", "object", "array", "string"})


def types(*names: str) -> frozenset[str]:
    return frozenset(names)


@pytest.mark.parametrize(
    ("raw", "allowed", "expected"),
    [
        ("5", types("string"), '"5"'),
        (" 5\n", types("integer"), "5"),
        ("+5", types("integer"), "5"),
        ("-07", types("integer"), "-7"),
        ("5.0", types("integer"), "5"),
        ("5.5", types("integer"), '"5.5"'),
        ("123456789012345678901234567890", types("integer"), "123456789012345678901234567890"),
        ("9" * 5000, types("integer"), '"' + "9" * 5000 + '"'),
        ("5", types("number"), "5"),
        ("5.0", types("number"), "5.0"),
        (".5", types("number"), "0.5"),
        ("1e3", types("number"), "1000.0"),
        ("1e999", types("number"), '"1e999"'),
        ("inf", types("number"), '"inf"'),
        ("nan", types("number"), '"nan"'),
        ("٣", types("integer"), '"٣"'),
        ("TRUE", types("boolean"), "true"),
        ("0", types("boolean"), "false"),
        ("yes", types("boolean"), '"yes"'),
        ("1", types("boolean", "integer"), "1"),
        ("NULL", types("null", "string"), "null"),
        ("null", types("string"), '"null"'),
        ("None", types("null"), '"None"'),
        ('{"a": [1]}', types("object"), '{"a": [1]}'),
        ('{"a": [1]}', types("array"), '"{\\"a\\": [1]}"'),
        ("[1, 2", types("array"), '"[1, 2"'),
        ("{'a': True, 'b': None}", types("object"), '{"a": true, "b": null}'),
        ("['x', \"y\"]", types("array"), '["x", "y"]'),
        ("(1, 2)", types("array"), "[1, 2]"),
        ("(1)", types("array"), '"(1)"'),
        ("[1] and more", types("array"), '"[1] and more"'),
        ('"[1, 2]"', types("array"), "[1, 2]"),
        ('"text"', types("array", "string"), '"\\"text\\""'),
        ('{"a": NaN}', types("object"), '"{\\"a\\": NaN}"'),
        ('{"a": 1e999}', types("object"), '"{\\"a\\": 1e999}"'),
        ("[" * 5000, types("array"), '"' + "[" * 5000 + '"'),
        ("", types("integer"), '""'),
        ("text\n\t\x01", types("integer"), '"text\\n\\t\\u0001"'),
    ],
)
def test_a_value_becomes_the_first_type_that_fits(raw: str, allowed: frozenset[str], expected: str) -> None:
    assert encode(raw, allowed) == expected


@given(st.text(), st.sets(st.sampled_from(sorted(ALL))))
def test_whatever_it_is_it_becomes_json(raw: str, allowed: set[str]) -> None:
    value = json.loads(encode(raw, frozenset(allowed)))

    if not allowed - {"string"}:
        assert value == raw


PERSON = {
    "type": "object",
    "properties": {
        "age": {"type": "integer"},
        "name": {"type": "string"},
        "tall": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {},
        "self": {"$ref": "#"},
    },
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"age": "5", "name": 7}', '{"age": 5, "name": "7"}'),
        ('{"tags": [1, "a"], "tall": 5}', '{"tags": ["1", "a"], "tall": 5}'),
        ('{"tall": "null", "self": {"age": "1"}}', '{"tall": null, "self": {"age": 1}}'),
        ('{"age": "five", "tall": "so", "more": "5"}', '{"age": "five", "tall": "so", "more": "5"}'),
        ('{ "age" : 5 }', '{ "age" : 5 }'),
        ('[{"age": "5"}]', '[{"age": "5"}]'),
        ('"5"', '"5"'),
    ],
)
def test_inner_values_conform_to_the_schema_where_they_can(text: str, expected: str) -> None:
    assert conform(text, Schema(PERSON, PERSON)) == expected


def test_values_conform_down_to_a_depth() -> None:
    text = '{"self": ' * 40 + '{"age": "5"}' + "}" * 40

    assert conform(text, Schema(PERSON, PERSON)) == text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("5", "5"), (' {"a": 1} ', '{"a": 1}'), ("text", '"text"'), ("NaN", '"NaN"'), ("", '""')],
)
def test_text_that_should_be_json_is_a_string_if_it_is_not(raw: str, expected: str) -> None:
    assert decode(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('" "', "{}"),
        ('"text"', None),
        ("[1]", None),
        ("{", None),
    ],
)
def test_arguments_are_an_object_or_a_string_that_holds_one(raw: str, expected: str | None) -> None:
    assert object_text(raw) == expected


@pytest.mark.parametrize(
    ("raw", "allowed", "expected"),
    [
        ("  ", types("null", "string"), None),
        ("nu", types("null", "string"), None),
        ("name", types("null", "string"), False),
        ("12", types("integer", "string"), None),
        ("12 apples", types("integer", "string"), False),
        ("9" * 5000, types("integer", "string"), False),
        ("t", types("boolean", "string"), None),
        ("to", types("boolean", "string"), False),
        ("{", types("object", "string"), True),
        ("[", types("array", "string"), True),
        ('"[', types("array", "string"), True),
        ("{", types("array", "string"), False),
        ("x", ALL, False),
    ],
)
def test_a_string_need_not_wait_once_it_can_be_nothing_else(
    raw: str, allowed: frozenset[str], expected: bool | None
) -> None:
    assert may_be_other(raw, allowed) is expected


@given(
    st.text('nulltrefas01-+.e{[(" x5', max_size=8),
    st.text("ul {}[]5x", max_size=4),
    st.sets(st.sampled_from(sorted(ALL))),
)
def test_what_cannot_be_another_type_never_becomes_one(raw: str, more: str, allowed: set[str]) -> None:
    among = frozenset(allowed | {"string"})

    if may_be_other(raw, among) is False:
        assert json.loads(encode(raw + more, among)) == raw + more
