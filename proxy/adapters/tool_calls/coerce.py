"""Raw text of an argument into JSON, by the types its schema allows.

The order is that of the engines: null, integer, number, boolean, object, array,
string; the first that fits wins. Nothing is ever refused: text that fits no type
arrives as the string it is, because a tool can answer that and a lost argument
it cannot.
"""

import json
import math
import re
from json.encoder import encode_basestring as quoted
from typing import Any

from proxy.adapters.tool_calls.literals import Literals, NotALiteral
from proxy.adapters.tool_calls.tools import Schema, is_of

_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)\.0*\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
# Deeper values stay as they are; no tool's schema describes any.
MAX_CONFORMED_DEPTH = 32
# `int` and `str` of huge integers are quadratic; the interpreter's own limit is 4300.
_MAX_DIGITS = 4000


def encode(raw: str, types: frozenset[str]) -> str:
    """The JSON spelling of `raw`."""
    text = raw.strip()
    for kind, read in _READERS:
        if kind in types and (found := read(text)) is not None:
            return found
    return quoted(raw)


def conform(text: str, schema: Schema) -> str:
    """JSON whose inner values are of the types that the schema allows, as far as their text lets them.

    A model that writes an object inside XML quotes its numbers as often as not.
    """
    if text[:1] not in ("{", "["):
        return text
    value = loads(text)
    conformed = _conformed(value, schema, MAX_CONFORMED_DEPTH)
    return text if conformed is value else json.dumps(conformed, ensure_ascii=False)


def _conformed(value: Any, schema: Schema, depth: int) -> Any:
    """The value itself where nothing needs to change."""
    if depth == 0:
        return value
    if isinstance(value, dict):
        mapping = {key: _conformed(item, schema.of(key), depth - 1) for key, item in value.items()}
        return mapping if any(mapping[key] is not item for key, item in value.items()) else value
    if isinstance(value, list):
        items = [_conformed(item, schema.items, depth - 1) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    types = schema.types
    if not types or is_of(value, types):
        return value
    other = json.loads(encode(value if isinstance(value, str) else json.dumps(value), types))
    return other if is_of(other, types) else value


def may_be_other(raw: str, types: frozenset[str]) -> bool | None:
    """May this beginning of a value become another type than string? None: too short to say.

    True is final, so that a long list is not looked at again with every piece.
    """
    text = raw.strip().lower()
    if not text:
        return None
    if (text[0] == "{" and "object" in types) or (text[0] in "[(" and "array" in types):
        return True
    if text[0] == '"' and types & {"object", "array"}:
        return True
    words = [word for kind, word in _WORDS if kind in types]
    if any(word.startswith(text) for word in words):
        return None
    if types & {"integer", "number"} and len(text) <= _MAX_DIGITS and _NUMERIC.match(text):
        return None
    return False


def decode(raw: str) -> str:
    """The JSON spelling of text that should be JSON already; a string if it is not."""
    text = raw.strip()
    return text if loads(text) is not _NOTHING else quoted(raw)


def object_text(raw: str) -> str | None:
    """The text of an object given as JSON, or as a JSON string that holds it; None if it is neither."""
    value = loads(raw)
    if isinstance(value, dict):
        return raw
    if not isinstance(value, str):
        return None
    if not value.strip():
        return "{}"
    return value.strip() if isinstance(loads(value), dict) else None


def loads(text: str) -> Any:
    """A strictly parsed JSON value, or the `_NOTHING` marker."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return _NOTHING


_NOTHING = object()


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that no float holds")
    return number


_WORDS = (
    ("null", "null"),
    ("boolean", "true"),
    ("boolean", "false"),
    ("boolean", "1"),
    ("boolean", "0"),
)
_NUMERIC = re.compile(r"[-+.0-9e]*\Z")


def _null(text: str) -> str | None:
    return "null" if text.lower() == "null" else None


def _integer(text: str) -> str | None:
    found = _WHOLE.match(text)
    digits = found[1] if found else text
    if len(digits) > _MAX_DIGITS or not _INTEGER.match(digits):
        return None
    return str(int(digits))


def _number(text: str) -> str | None:
    if (whole := _integer(text)) is not None and "." not in text:
        return whole
    if not _NUMBER.match(text) or not math.isfinite(number := float(text)):
        return None
    return json.dumps(number)


def _boolean(text: str) -> str | None:
    return {"true": "true", "1": "true", "false": "false", "0": "false"}.get(text.lower())


def _object(text: str) -> str | None:
    return _structure(text, "{", dict)


def _array(text: str) -> str | None:
    return _structure(text, "[", list)


def _structure(text: str, opening: str, kind: type) -> str | None:
    if text.startswith('"'):
        return _unwrapped(text, kind)
    if isinstance(loads(text), kind):
        return text
    return _literal(text, opening) if text[:1] in ("(", opening) else None


def _unwrapped(text: str, kind: type) -> str | None:
    """An object that was written as a JSON string holding JSON."""
    inner = loads(text)
    if isinstance(inner, str) and isinstance(loads(inner), kind):
        return inner.strip()
    return None


def _literal(text: str, openings: str) -> str | None:
    """A Python literal such as {'a': True}, as models write where they should write JSON."""
    literals = Literals(text)
    try:
        value = literals.value()
    except NotALiteral:
        return None
    return value if literals.ended() and value[0] in openings else None


_READERS = (
    ("null", _null),
    ("integer", _integer),
    ("number", _number),
    ("boolean", _boolean),
    ("object", _object),
    ("array", _array),
)
