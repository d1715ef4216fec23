from typing import Any

import pytest

from proxy.adapters.tool_calls.tools import MAX_SCHEMA_DEPTH, Tools


def tools(schema: Any, **more: Any) -> Tools:
    parameters = {"type": "object", "properties": {"x": schema}, **more}
    return Tools([{"type": "function", "function": {"name": "f", "parameters": parameters}}])


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "integer"}, {"integer"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"type": "INT32"}, {"integer"}),
        ({"type": "uint64"}, {"integer"}),
        ({"type": "double"}, {"number"}),
        ({"type": "bool"}, {"boolean"}),
        ({"type": "dict"}, {"object"}),
        ({"type": "tuple"}, {"array"}),
        ({"type": "varchar"}, {"string"}),
        ({"type": "what is this"}, {"string"}),
        ({"enum": ["a", 1, 2.5, None]}, {"string", "integer", "number", "null"}),
        ({"enum": [True, [], {}]}, {"boolean", "array", "object"}),
        ({"const": 5}, {"integer"}),
        ({"anyOf": [{"type": "integer"}, {"oneOf": [{"type": "null"}]}]}, {"integer", "null"}),
        ({"allOf": [{"type": "object"}]}, {"object"}),
        ({"properties": {"a": {}}}, {"object"}),
        ({"items": {"type": "string"}}, {"array"}),
        ({"prefixItems": []}, {"array"}),
        ({"$ref": "#/$defs/Place"}, {"object"}),
        ({"$ref": "#/$defs/a~1b/0"}, {"string"}),
        ({"$ref": "#"}, {"object"}),
        ({"$ref": "https://example.com/schema"}, {"string"}),
        ({"$ref": "#/$defs/Loop"}, {"string"}),
        ({}, {"string"}),
        (True, {"string"}),
        ({"type": {}, "enum": "a", "anyOf": "b"}, {"string"}),
    ],
)  # fmt: skip
def test_the_types_of_an_argument_are_those_its_schema_allows(schema: Any, types: set[str]) -> None:
    definitions = {"Place": {"properties": {"city": {"type": "string"}}}, "Loop": {"$ref": "#/$defs/Loop"}}

    known = tools(schema, **{"$defs": {**definitions, "a/b": {"type": "integer"}}})

    assert known.types("f", "x") == types
    assert known.types("f", "x") == types


def test_what_nobody_described_is_a_string() -> None:
    known = tools({"type": "integer"})

    assert known.types("f", "unknown") == {"string"}
    assert known.types("unknown", "x") == {"string"}


def test_additional_properties_have_a_schema_too() -> None:
    parameters = {"type": "object", "additionalProperties": {"type": "integer"}}

    known = Tools([{"function": {"name": "f", "parameters": parameters}}])

    assert known.types("f", "anything") == {"integer"}
    assert not known.has("f", "anything")


def test_properties_and_items_are_found_behind_references_and_unions() -> None:
    place = {"type": "object", "properties": {"zip": {"type": "integer"}}}
    known = tools({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Place"}]}, **{"$defs": {"Place": place}})
    listed = tools({"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number"}}]})

    assert known.arguments("f").of("x").of("zip").types == {"integer"}
    assert known.arguments("f").of("x").of("other").types == set()
    assert listed.arguments("f").of("x").items.types == {"number"}
    assert listed.arguments("f").of("x").items.items.types == set()


def test_a_schema_nested_without_end_is_followed_so_far_only() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(MAX_SCHEMA_DEPTH + 1):
        schema = {"anyOf": [schema]}

    assert tools(schema).types("f", "x") == {"string"}


@pytest.mark.parametrize(
    "listed",
    [
        None,
        [],
        [None],
        [{}],
        ["f"],
        [{"type": "function"}],
        [{"type": "function", "function": {}}],
        [{"function": {"name": ""}}],
        [{"function": {"name": 5}}],
    ],
)
def test_a_tool_without_its_parts_is_no_tool(listed: Any) -> None:
    known = Tools(listed)

    assert len(known) == 0
    assert known.names == ()


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "f"},
        {"name": "f", "input_schema": {"properties": {"x": {}}}},
        {"type": "function", "function": {"name": "f", "parameters": None}},
        {"type": "function", "function": {"name": "f", "parameters": "none"}},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": []}}},
    ],
)
def test_a_tool_needs_no_more_than_a_name(tool: Any) -> None:
    known = Tools([tool])

    assert known.knows("f") and known.names == ("f",)
    assert known.types("f", "x") == {"string"}


def test_a_named_choice_leaves_one_tool_known() -> None:
    known = Tools([{"name": "f"}, {"name": "g"}])

    assert known.only("f").knows("f")
    assert not known.only("f").knows("g")
    assert known.knows("g")


def test_case_is_folded_where_only_one_tool_can_be_meant() -> None:
    known = Tools([{"name": "Read"}, {"name": "Write"}, {"name": "write"}])

    assert known.folded("read") == "Read"
    assert known.folded("Read") == "Read"
    assert known.folded("write") == "write"
    assert known.folded("WRITE") == "WRITE"
    assert known.folded("none") == "none"


def test_a_tool_is_described_if_it_has_properties() -> None:
    assert tools({}).describes("f")
    assert not tools({}).describes("g")
    assert not Tools([{"name": "f"}]).describes("f")
