"""Writes calls as a model would have written them: for history and for examples in prompts.

It uses the same table that the scanner reads with, so that what is written here
is read back as the same calls.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring as quoted
from typing import Any

from proxy.adapters.tool_calls.coerce import loads
from proxy.adapters.tool_calls.format import Body, Format
from proxy.adapters.tool_calls.json_arguments import SPLIT
from proxy.adapters.tool_calls.tools import type_of


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool, as history has it; text that is no JSON object is kept as it is."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str


def render_calls(format: Format, calls: Sequence[Call], *, trigger: str | None = None) -> str:
    """The text of these calls in a format's own markup."""
    if not calls:
        return ""
    format = format.also[0] if format.body is Body.NONE else format
    write = _WRITERS[format.body]
    written = [write(format, call, index) for index, call in enumerate(calls)]
    groups = [_together(format, written)] if format.one_wrap or format.listed else written
    text = _join(format, (_wrapped(format, group) for group in groups))
    return f"{trigger}\n{text}" if trigger and format.trigger else text


def _together(format: Format, written: list[str]) -> str:
    if format.listed:
        return "[" + ", ".join(written) + "]"
    between = format.between or ("\n" if format.lines else "")
    return between.join(written)


def _wrapped(format: Format, text: str) -> str:
    is_message = format.bare and format.body in (Body.OBJECTS, Body.PYTHON)
    if not format.wrap or is_message or text.startswith(format.wrap[0]):
        return text
    return _join(format, (format.wrap[0], text, *format.wrap_end[:1]))


def _join(format: Format, parts: Iterable[str]) -> str:
    return ("\n" if format.lines else "").join(parts)


def _head(format: Format, call: Call, index: int) -> str:
    """The opening tag of a call; a number in its id is the model's own count."""
    own = re.search(r":(\d+)\Z", call.id)
    return format.call[0].format(name=call.name, n=own[1] if own else index, id=call.id, channel="commentary")


def _elements(format: Format, call: Call, index: int) -> str:
    arguments = _mapping(call)
    head = _head(format, call, index).rstrip("\n")
    if arguments is None:
        return _join(format, (head, str(call.arguments), format.call_end[0]))
    parts = [_element(format, key, value) for key, value in arguments.items()]
    return _join(format, (head, *parts, _end(format)))


def _end(format: Format) -> str:
    return format.call_end[0] if format.lines else format.call_end[0].replace("\n", "")


def _element(format: Format, key: str, value: Any) -> str:
    is_text = isinstance(value, str)
    text = value if is_text else _json(value)
    if format.trim:
        text = f"\n{text}\n"
    text_word, other_word = format.type_words
    head = format.argument[0].format(key=key, type=text_word if is_text else other_word or type_of(value))
    return head + text + format.argument_end[0].format(key=key)


def _headed_json(format: Format, call: Call, index: int) -> str:
    arguments = _arguments(call)
    if format.cdata:
        arguments = arguments.replace("]]>", SPLIT)
    return _head(format, call, index) + arguments + "".join(format.call_end[:1])


def _object(format: Format, call: Call, index: int) -> str:
    if format.keyed:
        return f"{{{_json(call.name)}: {_arguments(call)}}}"
    name, arguments = _json(format.name_keys[0]), _json(format.arguments_keys[0])
    return f"{{{name}: {_json(call.name)}, {arguments}: {_arguments(call)}}}"


def _python(format: Format, call: Call, index: int) -> str:
    arguments = _mapping(call)
    if arguments is None:
        return f"{call.name}({call.arguments})"
    return f"{call.name}({', '.join(f'{key}={_literal(value)}' for key, value in arguments.items())})"


def _literal(value: Any) -> str:
    """A value in Python's syntax, in which JSON's strings and numbers are right as they are."""
    match value:
        case None | bool():
            return str(value)
        case str():
            return quoted(value)
        case list():
            return "[" + ", ".join(_literal(item) for item in value) + "]"
        case dict():
            pairs = (f"{quoted(str(key))}: {_literal(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case _:
            return _json(value)


def _braces(format: Format, call: Call, index: int) -> str:
    arguments = _mapping(call)
    inner = str(call.arguments) if arguments is None else _braced(format, arguments)
    return _head(format, call, index) + inner + format.call_end[0]


def _braced(format: Format, value: Any) -> str:
    """A value in braces, its strings between the format's marks."""
    match value:
        case str():
            return format.quote + value + format.quote
        case list():
            return "[" + ",".join(_braced(format, item) for item in value) + "]"
        case Mapping():
            keys = (
                str(key) if re.fullmatch(r"[\w.-]+", str(key)) else _braced(format, str(key)) for key in value
            )
            pairs = zip(keys, value.values(), strict=True)
            return "{" + ",".join(f"{key}:{_braced(format, item)}" for key, item in pairs) + "}"
        case _:
            return _json(value)


def _tree(format: Format, call: Call, index: int) -> str:
    arguments = _mapping(call)
    head = _head(format, call, index)
    if arguments is None:
        return head + str(call.arguments) + format.call_end[0]
    return head + "".join(_branch(format, k, v) for k, v in arguments.items()) + format.call_end[0]


def _branch(format: Format, name: str, value: Any) -> str:
    match value:
        case str():
            inner = value
        case list():
            inner = "".join(_branch(format, "item", item) for item in value)
        case Mapping():
            inner = "".join(_branch(format, key, item) for key, item in value.items())
        case _:
            inner = _json(value)
    return format.argument[0].format(key=name) + inner + format.argument_end[0].format(key=name)


def _arguments(call: Call) -> str:
    arguments = _mapping(call)
    return str(call.arguments) if arguments is None else _json(arguments)


def _mapping(call: Call) -> Mapping[str, Any] | None:
    """The arguments, or None if they are no JSON object: an earlier call that was cut off."""
    if not isinstance(call.arguments, str):
        return call.arguments
    found = loads(call.arguments) if call.arguments.strip() else {}
    return found if isinstance(found, dict) else None


def _json(value: Any) -> str:
    # Not orjson: numbers of a history may have more than 64 bits.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_WRITERS: Mapping[Body, Callable[[Format, Call, int], str]] = {
    Body.ELEMENTS: _elements,
    Body.JSON: _headed_json,
    Body.OBJECTS: _object,
    Body.PYTHON: _python,
    Body.BRACES: _braces,
    Body.TREE: _tree,
}
