"""Arguments made from a schema satisfy it."""

import pytest

from proxy.demo.arguments import example

CASES = [
    ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": "example"}),
    (
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
            "required": ["b"],
        },
        {"b": 3},
    ),
    ({"properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}}, {"unit": "celsius"}),
    ({"properties": {"unit": {"type": "string", "default": "kelvin"}}}, {"unit": "kelvin"}),
    ({"properties": {"kind": {"const": "fixed"}}}, {"kind": "fixed"}),
    ({"properties": {"n": {"type": "integer", "minimum": 5}}}, {"n": 5}),
    ({"properties": {"n": {"type": "number", "maximum": 1}}}, {"n": 1}),
    ({"properties": {"on": {"type": "boolean"}, "no": {"type": "null"}}}, {"on": True, "no": None}),
    ({"properties": {"words": {"type": "array", "items": {"type": "string"}}}}, {"words": ["example"]}),
    ({"properties": {"words": {"type": "array"}}}, {"words": ["example"]}),
    ({"properties": {"code": {"type": "string", "maxLength": 2}}}, {"code": "ex"}),
    ({"properties": {"code": {"type": "string", "minLength": 9}}}, {"code": "example.."}),
    ({"properties": {"x": {"type": ["integer", "null"]}}}, {"x": 3}),
    ({"properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}, {"x": 3}),
    ({"properties": {"x": {"$ref": "#/$defs/X"}}, "$defs": {"X": {"type": "boolean"}}}, {"x": True}),
    ({"properties": {"x": {"type": "object", "properties": {"y": {"type": "integer"}}}}}, {"x": {"y": 3}}),
    ({"type": "object"}, {}),
    ({}, {}),
    (None, {}),
]


@pytest.mark.parametrize(("schema", "arguments"), CASES)
def test_the_example_fits_the_schema(schema, arguments):
    assert example(schema) == arguments


def test_a_schema_that_contains_itself_ends():
    node = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}

    assert set(example(node)) == {"child"}
