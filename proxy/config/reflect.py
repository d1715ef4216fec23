"""The schema as data: what the loader and the generated documents read off the Structs."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, inspect

Flags = Mapping[str, Any]


def unwrapped(wanted: inspect.Type, flags: Flags) -> tuple[inspect.Type, Flags]:
    """A type without its metadata and its `| None`, and the flags on the way down."""
    while True:
        if isinstance(wanted, inspect.Metadata):
            flags = {**flags, **(wanted.extra or {})}
            wanted = wanted.type
            continue
        if isinstance(wanted, inspect.UnionType):
            rest = [option for option in wanted.types if not isinstance(option, inspect.NoneType)]
            if len(rest) == 1:
                flags = {**flags, "optional": True}
                wanted = rest[0]
                continue
        return wanted, flags


def written_fields(wanted: inspect.StructType) -> list[inspect.Field]:
    """The fields that a file may hold."""
    return [field_ for field_ in wanted.fields if not unwrapped(field_.type, {})[1].get("internal")]


def description(field_: inspect.Field) -> str:
    """The sentence that stands beside a field in the schema."""
    assert isinstance(field_.type, inspect.Metadata), f"{field_.name} has no sentence"
    return str((field_.type.extra_json_schema or {})["description"])


def holds_structs(wanted: inspect.Type) -> bool:
    """Whether this is a Struct, or one of several."""
    options = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    return any(isinstance(option, inspect.StructType) for option in options)


def all_structs(wanted: inspect.Type) -> dict[type, inspect.StructType]:
    """Every Struct that is part of a type, by its class."""
    found: dict[type, inspect.StructType] = {}
    waiting = [wanted]
    while waiting:
        each = waiting.pop()
        match each:
            case inspect.StructType() if each.cls not in found:
                found[each.cls] = each
                waiting += [field.type for field in each.fields]
            case inspect.UnionType():
                waiting += each.types
            case inspect.Metadata():
                waiting.append(each.type)
            case inspect.VarTupleType():
                waiting.append(each.item_type)
            case inspect.DictType():
                waiting.append(each.value_type)
    return found


def tag_of(value: Struct) -> str:
    """What `type` or `kind` a file writes to get such a Struct."""
    return str(value.__struct_config__.tag)
