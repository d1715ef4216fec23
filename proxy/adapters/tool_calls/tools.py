"""The tools of one request, as the scanners need them.

An argument written as XML is raw text; whether `5` is a number or a string is
said only by the tool's JSON schema. `types` answers that for one property: the
set of JSON types its value may have.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

# A schema may refer to itself, directly or through its members.
MAX_SCHEMA_DEPTH = 16

STRING = frozenset({"string"})

# What tool authors write where JSON schema knows one spelling.
_SPELLINGS = {
    **dict.fromkeys(("string", "str", "text", "varchar", "char", "enum"), "string"),
    **dict.fromkeys(("integer", "int", "long", "short", "unsigned"), "integer"),
    **dict.fromkeys((f"{sign}int{bits}" for sign in ("", "u") for bits in ("", 8, 16, 32, 64)), "integer"),
    **dict.fromkeys(("number", "num", "float", "float32", "float64", "double"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("object", "dict", "map"), "object"),
    **dict.fromkeys(("array", "list", "tuple"), "array"),
    **dict.fromkeys(("null", "none"), "null"),
}
_UNIONS = ("anyOf", "oneOf", "allOf")


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema inside a tool's parameters; `root` is where its references point."""

    node: Mapping[str, Any]
    root: Mapping[str, Any]
    depth: int = 0

    @property
    def types(self) -> frozenset[str]:
        """The types it allows: its own, its members', and those of what it refers to."""
        node = self.node
        found = {spelled(kind) for kind in _listed(node.get("type")) if isinstance(kind, str)}
        found.update(type_of(member) for member in _members(node.get("enum")))
        if "const" in node:
            found.add(type_of(node["const"]))
        for member in self._parts():
            found |= member.types
        if not found and "properties" in node:
            found.add("object")
        if not found and ("items" in node or "prefixItems" in node):
            found.add("array")
        return frozenset(found)

    def of(self, key: str) -> "Schema":
        """The schema of one property; an empty one where nothing is said about it."""
        found = _mapping(self.node.get("properties")).get(key)
        if isinstance(found, Mapping):
            return self._inner(found)
        for part in self._parts():
            inner = part.of(key)
            if inner.node:
                return inner
        extra = self.node.get("additionalProperties")
        return self._inner(_mapping(extra))

    @property
    def items(self) -> "Schema":
        """The schema of a list's items."""
        if isinstance(self.node.get("items"), Mapping):
            return self._inner(self.node["items"])
        for part in self._parts():
            if part.items.node:
                return part.items
        return self._inner({})

    def _parts(self) -> "Iterable[Schema]":
        """What it is made of or refers to."""
        if self.depth >= MAX_SCHEMA_DEPTH:
            return
        for word in _UNIONS:
            for member in _members(self.node.get(word)):
                yield self._inner(_mapping(member))
        if isinstance(self.node.get("$ref"), str):
            yield self._inner(_mapping(resolve(self.node["$ref"], self.root)))

    def _inner(self, node: Mapping[str, Any]) -> "Schema":
        return Schema(node, self.root, self.depth + 1)


class Tools:
    """Names and schemas, built from a request's `tools`; parts that are missing say nothing."""

    def __init__(self, tools: Iterable[Any] | None) -> None:
        self._schemas = dict(_functions(tools or ()))
        self._only: str | None = None
        self._types: dict[tuple[str, str], frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._schemas)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._schemas)

    def knows(self, name: str) -> bool:
        return name in self._schemas if self._only is None else name == self._only

    def only(self, name: str) -> "Tools":
        """The same tools, of which one alone counts as known (a named tool_choice)."""
        chosen = copy(self)
        chosen._only = name
        return chosen

    def folded(self, name: str) -> str:
        """The one tool whose name differs in case only, else the name as it is."""
        if name in self._schemas:
            return name
        same = [known for known in self._schemas if known.casefold() == name.casefold()]
        return same[0] if len(same) == 1 else name

    def arguments(self, name: str) -> Schema:
        """The schema of a tool's arguments."""
        root = self._schemas.get(name, {})
        return Schema(root, root)

    def describes(self, name: str) -> bool:
        """Is anything said about this tool's properties?"""
        return bool(_mapping(self._schemas.get(name)).get("properties"))

    def has(self, name: str, key: str) -> bool:
        return key in _mapping(_mapping(self._schemas.get(name)).get("properties"))

    def types(self, name: str, key: str) -> frozenset[str]:
        """The JSON types that an argument may have; a string where nothing is said."""
        found = self._types.get((name, key))
        if found is None:
            found = self.arguments(name).of(key).types or STRING
            if self.has(name, key):
                self._types[name, key] = found
        return found


def spelled(kind: str) -> str:
    """The JSON type behind what a schema's author wrote."""
    return _SPELLINGS.get(kind.strip().lower(), "string")


def resolve(reference: str, root: Mapping[str, Any]) -> object:
    """What a local reference such as `#/$defs/Place` points at, or None."""
    if not reference.startswith("#"):
        return None
    found: object = root
    for part in reference.strip("#/").split("/") if reference.strip("#/") else ():
        found = _mapping(found).get(part.replace("~1", "/").replace("~0", "~"))
    return found


def is_of(value: object, types: frozenset[str]) -> bool:
    """Is this value of one of the types? An integer is a number too."""
    kind = type_of(value)
    return kind in types or (kind == "integer" and "number" in types)


def _functions(tools: Iterable[Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for tool in tools:
        function = _mapping(_mapping(tool).get("function", tool))
        name = function.get("name")
        if isinstance(name, str) and name:
            yield name, _mapping(function.get("parameters", function.get("input_schema")))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _members(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def type_of(value: object) -> str:
    """The JSON type of a parsed value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "string"
