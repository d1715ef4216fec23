"""The schema for editors, as JSON Schema.

Made by hand from the same types, because a file may hold more than the values do:
durations as text, `${…}` in place of a number, one item in place of a list.
"""

from typing import Any

from msgspec import inspect

from proxy.config.choices import CHOICES
from proxy.config.reflect import Flags, description, unwrapped, written_fields
from proxy.config.schema import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_UNITS = {
    "duration": r"^(none|off|\d+(\.\d+)?|(\d+(\.\d+)?(us|µs|ms|s|m|h|d))+|.*\$\{.*)$",
    "size": r"^(\d+(\.\d+)?\s*([kKmMgG]([iI]?[bB])?|[bB])?|.*\$\{.*)$",
    "timestamp": r"^(\d{4}-\d{2}-\d{2}.*|.*\$\{.*)$",
}
_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def json_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a configuration file."""
    definitions: dict[str, Any] = {}
    root = _struct(inspect.type_info(Config), definitions)  # type: ignore[arg-type]  # Config is a Struct
    return {"$schema": DIALECT, **root, "patternProperties": {"^x-": {}}, "$defs": definitions}


def _struct(wanted: inspect.StructType, definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    if wanted.tag_field:
        properties[wanted.tag_field] = {"const": wanted.tag}
        required.append(wanted.tag_field)
    for field in written_fields(wanted):
        properties[field.encode_name] = _property(field, definitions)
        if field.required and wanted.tag_field != "type":
            required.append(field.encode_name)
    if wanted.tag_field == "type":
        properties.setdefault(
            str(wanted.tag), {"type": "object", "description": "The options may stand here too."}
        )
    return {
        "title": wanted.cls.__name__,
        "description": summary(wanted),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _property(field: inspect.Field, definitions: dict[str, Any]) -> dict[str, Any]:
    wanted, flags = unwrapped(field.type, {})
    shape: dict[str, Any] = {"description": description(field), **_shape(wanted, flags, definitions)}
    if flags.get("no_op"):
        shape["deprecated"] = True
    if isinstance(field.default, str | int | float) and field.default != "":
        shape["default"] = field.default
    return shape


def _shape(wanted: inspect.Type, flags: Flags, definitions: dict[str, Any]) -> dict[str, Any]:
    wanted, flags = unwrapped(wanted, flags)
    if "unit" in flags:
        return {"type": ["number", "string"], "pattern": _UNITS[flags["unit"]]}
    if "choice" in flags:
        return {"anyOf": [{"enum": list(CHOICES[flags["choice"]])}, _VARIABLE]}
    match wanted:
        case inspect.StructType():
            return _reference(wanted, definitions)
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _shape(wanted.value_type, {}, definitions)}
        case inspect.VarTupleType():
            return _list(_shape(wanted.item_type, {}, definitions))
        case inspect.UnionType():
            return {"anyOf": [_shape(option, {}, definitions) for option in wanted.types]}
    return _scalar(wanted)


def _reference(wanted: inspect.StructType, definitions: dict[str, Any]) -> dict[str, Any]:
    name = wanted.cls.__name__
    if name not in definitions:
        definitions[name] = {}
        definitions[name] = _struct(wanted, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    items = {"type": "array", "items": item}
    holds_structs = "$ref" in item or any("$ref" in option for option in item.get("anyOf", ()))
    return items if holds_structs else {"anyOf": [items, item]}


def _scalar(wanted: inspect.Type) -> dict[str, Any]:
    match wanted:
        case inspect.BoolType():
            return {"anyOf": [{"type": "boolean"}, {"enum": ["yes", "no", "on", "off"]}, _VARIABLE]}
        case inspect.IntType() | inspect.FloatType():
            kind = "integer" if isinstance(wanted, inspect.IntType) else "number"
            bounds = {"minimum": wanted.ge, "exclusiveMinimum": wanted.gt, "maximum": wanted.le}
            given = {name: bound for name, bound in bounds.items() if bound is not None}
            return {"anyOf": [{"type": kind, **given}, _VARIABLE]}
        case inspect.LiteralType():
            return {"anyOf": [{"enum": list(wanted.values)}, _VARIABLE]}
        case inspect.StrType() if wanted.pattern:
            return {"type": "string", "pattern": wanted.pattern}
    return {"type": ["string", "number", "boolean"]}


def summary(wanted: inspect.StructType) -> str:
    """A section's sentences, on one line."""
    return " ".join((wanted.cls.__doc__ or "").split())
