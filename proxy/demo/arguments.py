"""Arguments that fit a tool's JSON schema, always the same ones for the same schema.

A client that validates what a model sends must accept them, so required
properties are there, enums and bounds are kept, and `$ref` is followed.
"""

from typing import Any

# Schemas refer to themselves (a tree's children); real tools nest two or three deep.
MAX_DEPTH = 8

_PLAIN: dict[str, Any] = {"boolean": True, "null": None}


def example(schema: object) -> dict[str, Any]:
    """An argument object for a tool whose `parameters` are `schema`."""
    value = _value(schema, schema if isinstance(schema, dict) else {}, 0)
    return value if isinstance(value, dict) else {}


def _value(schema: object, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {} if depth == 0 else "example"
    schema = _resolved(schema, root)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _value(schema[union][0], root, depth + 1)
    return _of_type(schema, root, depth)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    target: Any = root
    for step in reference[2:].split("/"):
        target = target.get(step, {}) if isinstance(target, dict) else {}
    return target if isinstance(target, dict) else {}


def _of_type(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        return _object(schema, root, depth)
    if kind == "array":
        return [_value(schema.get("items", {"type": "string"}), root, depth + 1)]
    if kind in ("integer", "number"):
        return _number(schema, kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    return _string(schema)


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    names = schema.get("required") or list(properties)
    return {name: _value(properties.get(name, {}), root, depth + 1) for name in names}


def _number(schema: dict[str, Any], kind: str) -> Any:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        return low
    plain = 3 if kind == "integer" else 1.5
    return plain if high is None else min(high, plain)


def _string(schema: dict[str, Any]) -> str:
    text = "example"
    text += "." * max(0, int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]
