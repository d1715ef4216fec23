"""Nodes to Structs, leaf by leaf, so that one mistake does not hide the next.

msgspec's own conversion stops at the first error and knows no lines. This walk
follows the types it describes, converts every leaf by itself, reports what does not
fit, and goes on with the default. The schema stays the only place with rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NoReturn

from msgspec import inspect

from proxy.config.document import Node, Report, kind_of
from proxy.config.problems import Problem, shown
from proxy.config.reflect import Flags, description, holds_structs, unwrapped, written_fields
from proxy.config.scalars import Mismatch, converted, guess, one_of

# More names than this in one message hide the message.
_MAX_NAMED = 24


class _Unusable(Exception):
    """This node has no value; that has been reported."""


@dataclass(slots=True)
class Converter:
    """Builds values of the schema's types and collects problems and notes."""

    report: Report
    notes: list[str] = field(default_factory=list)
    # Worked out once per Struct: a key file has it a hundred thousand times.
    _known: dict[type, dict[str, inspect.Field]] = field(default_factory=dict)

    def convert(self, node: Node, wanted: inspect.Type) -> Any:
        """The value of a section, with defaults where nothing could be made of what stands there."""
        return self._value(node, wanted, {})

    def _value(self, node: Node, wanted: inspect.Type, flags: Flags) -> Any:
        wanted, flags = unwrapped(wanted, flags)
        match wanted:
            case inspect.StructType():
                return self._struct(node, wanted)
            case inspect.DictType():
                return self._dict(node, wanted, flags)
            case inspect.VarTupleType():
                return self._tuple(node, wanted, flags)
            case inspect.UnionType() if holds_structs(wanted):
                return self._variant(node, wanted)
        return self._scalar(node, wanted, flags)

    # --- mappings -----------------------------------------------------------

    def _struct(self, node: Node, wanted: inspect.StructType) -> Any:
        entries = self._entries(node)
        fields = self._fields(wanted)
        for key, entry in entries.items():
            if key not in fields and key != wanted.tag_field:
                self._refuse_key(entry, key, fields)
        values = {}
        for name, field_ in fields.items():
            own = entries.get(name)
            if own is not None and own.value is not None:
                value = self._field(own, field_)
                if value is not None:
                    values[field_.name] = value
            elif field_.required and not (own and own.is_broken):
                self._report(node, f"{name} is missing", name)
        return wanted.cls(**(_placeholders(wanted) | values))

    def _fields(self, wanted: inspect.StructType) -> dict[str, inspect.Field]:
        """What may stand there, by the name it is written with."""
        known = self._known.get(wanted.cls)
        if known is None:
            known = {field.encode_name: field for field in written_fields(wanted)}
            self._known[wanted.cls] = known
        return known

    def _field(self, node: Node, field_: inspect.Field) -> Any:
        wanted, flags = unwrapped(field_.type, {})
        if flags.get("no_op") and node.value is not True:
            self.notes.append(f"{node.path}: nothing to do. {description(field_)}")
        try:
            return self._value(node, wanted, flags)
        except _Unusable:
            return None

    def _dict(self, node: Node, wanted: inspect.DictType, flags: Flags) -> dict[str, Any]:
        values = {}
        for key, entry in self._entries(node).items():
            try:
                values[key] = self._value(entry, wanted.value_type, flags)
            except _Unusable:
                continue
        return values

    def _variant(self, node: Node, wanted: inspect.UnionType) -> Any:
        entries = self._entries(node)
        variants = {str(each.tag): each for each in wanted.types if isinstance(each, inspect.StructType)}
        tag_field = str(next(iter(variants.values())).tag_field)
        allowed = list(variants)
        tag = entries.get(tag_field)
        if tag is None or tag.value is None:
            if tag is None or not tag.is_broken:
                self._report(node, f"{tag_field} is missing; {one_of(allowed)}", tag_field)
            raise _Unusable
        chosen = variants.get(str(tag.value))
        if chosen is None:
            self._refuse(tag, {}, f"must be {one_of(allowed)}{guess(str(tag.value), allowed)}")
        return self._struct(node, chosen)

    def _entries(self, node: Node) -> dict[str, Node]:
        if not isinstance(node.value, dict):
            self._refuse(node, {"secret": True}, "must be a mapping, `key: value`")
        return node.mapping

    def _refuse_key(self, entry: Node, key: str, fields: Mapping[str, inspect.Field]) -> None:
        known = [name for name, field_ in fields.items() if not unwrapped(field_.type, {})[1].get("no_op")]
        if nearest := get_close_matches(key, known, n=1):
            sentence = f"unknown key, did you mean {nearest[0]}?"
        else:
            sentence = f"unknown key; allowed here: {', '.join(known[:_MAX_NAMED])}"
        self.report(Problem(entry.line, entry.path, "", sentence))

    # --- lists --------------------------------------------------------------

    def _tuple(self, node: Node, wanted: inspect.VarTupleType, flags: Flags) -> tuple[Any, ...]:
        if not isinstance(node.value, list):
            return (self._lone_item(node, wanted, flags),)
        values, used = [], []
        for item in node.items:
            try:
                values.append(self._value(item, wanted.item_type, flags))
                used.append(item)
            except _Unusable:
                continue
        node.dropped += len(node.items) - len(used)
        node.value = used  # later checks find the node of a value by its index
        return tuple(values)

    def _lone_item(self, node: Node, wanted: inspect.VarTupleType, flags: Flags) -> Any:
        """One scalar where a list of scalars belongs is a list of one."""
        item, _ = unwrapped(wanted.item_type, {})
        if isinstance(node.value, dict) or holds_structs(item):
            self._refuse(node, {"secret": True}, "must be a list; begin each entry with `- `")
        return self._value(node, wanted.item_type, flags)

    # --- scalars ------------------------------------------------------------

    def _scalar(self, node: Node, wanted: inspect.Type, flags: Flags) -> Any:
        try:
            return converted(node, wanted, flags)
        except Mismatch as mismatch:
            self._refuse(node, flags, str(mismatch))

    def _refuse(self, node: Node, flags: Flags, sentence: str) -> NoReturn:
        if node.is_broken:
            raise _Unusable
        is_scalar = not isinstance(node.value, dict | list | None)
        found = shown(node.text) if is_scalar and not flags.get("secret") else kind_of(node)
        self.report(Problem(node.line, node.path, found, sentence))
        raise _Unusable

    def _report(self, node: Node, sentence: str, key: str) -> None:
        self.report(Problem(node.line, node.child(key), "", sentence))


def _placeholders(wanted: inspect.StructType) -> dict[str, Any]:
    """Values for missing required fields, so that the rest can still be checked."""
    return {field_.name: _empty(field_.type) for field_ in wanted.fields if field_.required}


def _empty(wanted: inspect.Type) -> Any:
    return () if isinstance(unwrapped(wanted, {})[0], inspect.VarTupleType) else ""
