"""One scalar and the type it must have: a value, or what to write instead.

The type has the last word, not YAML: `password: 0123` is text where text is wanted,
and what came out of `${…}` is a number where a number is wanted.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from math import isfinite
from typing import Any

from msgspec import inspect

from proxy.config.choices import CHOICES
from proxy.config.document import Node, plain_value
from proxy.config.reflect import Flags, unwrapped
from proxy.config.units import parse_duration, parse_size

_YES_NO = {"yes": True, "on": True, "no": False, "off": False}
_NOTHING = ("none", "off")
_NUMBERS = inspect.IntType | inspect.FloatType


class Mismatch(Exception):
    """A scalar is not what the type wants; the text says what that is."""


def one_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def guess(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def converted(node: Node, wanted: inspect.Type, flags: Flags) -> Any:
    if isinstance(node.value, dict | list) or node.value is None:
        raise Mismatch(f"must be {_wish(wanted, flags)}")
    if flags.get("optional") and isinstance(wanted, _NUMBERS) and node.value in _NOTHING:
        return None
    if isinstance(wanted, inspect.UnionType):
        return _first_that_fits(node, wanted, flags)
    if unit := flags.get("unit"):
        return _bounded(_in_unit(node, unit, wanted), wanted, flags)
    if kind := flags.get("choice"):
        return _chosen(_as_text(node), list(CHOICES[kind]))
    return _READERS[type(wanted)](node, wanted)


def _first_that_fits(node: Node, wanted: inspect.UnionType, flags: Flags) -> Any:
    for option in wanted.types:
        inner, inner_flags = unwrapped(option, {**flags, "optional": False})
        try:
            return converted(node, inner, inner_flags)
        except Mismatch:
            continue
    raise Mismatch(f"must be {_wish(wanted, flags)}")


def _in_unit(node: Node, unit: str, wanted: inspect.Type) -> Any:
    value = _bare(node)
    try:
        if isinstance(value, str):
            return _UNITS[unit](value)
    except ValueError:
        raise Mismatch(f"must be {_wish(wanted, {'unit': unit})}") from None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and isinstance(wanted, inspect.IntType)):
        raise Mismatch(f"must be {_wish(wanted, {'unit': unit})}")
    return value


def _timestamp(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _boolean(node: Node, wanted: inspect.Type) -> bool:
    value = _bare(node)
    if isinstance(value, str):
        value = _YES_NO.get(value.lower(), value)
    if not isinstance(value, bool):
        raise Mismatch("must be true or false")
    return value


def _integer(node: Node, wanted: inspect.Type) -> int:
    value = _bare(node)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mismatch(f"must be {_wish(wanted, {})}")
    return int(_bounded(value, wanted, {}))


def _float(node: Node, wanted: inspect.Type) -> float:
    value = _bare(node)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Mismatch(f"must be {_wish(wanted, {})}")
    return float(_bounded(value, wanted, {}))


def _text(node: Node, wanted: inspect.Type) -> str:
    assert isinstance(wanted, inspect.StrType)
    text = _as_text(node)
    if len(text) < (wanted.min_length or 0):
        raise Mismatch("must not be empty")
    if wanted.pattern and not re.search(wanted.pattern, text):
        raise Mismatch(f"must match {wanted.pattern}")
    return text


def _literal(node: Node, wanted: inspect.Type) -> str:
    assert isinstance(wanted, inspect.LiteralType)
    return _chosen(_as_text(node), [str(value) for value in wanted.values])


def _chosen(text: str, allowed: list[str]) -> str:
    if text not in allowed:
        raise Mismatch(f"must be {one_of(allowed)}{guess(text, allowed)}")
    return text


def _bounded(value: float, wanted: inspect.Type, flags: Flags) -> float:
    assert isinstance(wanted, _NUMBERS)
    is_low = (wanted.ge is not None and value < wanted.ge) or (wanted.gt is not None and value <= wanted.gt)
    is_high = (wanted.le is not None and value > wanted.le) or (wanted.lt is not None and value >= wanted.lt)
    if is_low or is_high or not isfinite(value):
        raise Mismatch(f"must be {_wish(wanted, flags)}")
    return value


def _bare(node: Node) -> Any:
    """The scalar; what came out of `${…}` may be a number or a truth value too."""
    return plain_value(node.value) if node.is_expanded and isinstance(node.value, str) else node.value


def _as_text(node: Node) -> str:
    """The scalar as text: `password: 0123` keeps its zero."""
    return node.value if isinstance(node.value, str) else node.text


def _wish(wanted: inspect.Type, flags: Flags) -> str:
    """What a scalar of this type looks like, in words."""
    wanted, flags = unwrapped(wanted, flags)
    if "unit" in flags:
        above = isinstance(wanted, inspect.FloatType | inspect.IntType) and wanted.gt == 0
        return _WISHES[flags["unit"]] + (", above zero" if above else "")
    match wanted:
        case inspect.IntType():
            return f"a whole number{_range(wanted)}"
        case inspect.FloatType():
            return f"a number{_range(wanted)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return one_of([str(value) for value in wanted.values])
        case inspect.UnionType():
            return ", or ".join(_wish(option, {}) for option in wanted.types)
    return "text"


def _range(wanted: inspect.IntType | inspect.FloatType) -> str:
    if wanted.gt is not None:
        return f" above {wanted.gt}"
    if wanted.ge is not None and wanted.le is not None:
        return f" from {wanted.ge} to {wanted.le}"
    return f", {wanted.ge} or more" if wanted.ge is not None else ""


_UNITS: Mapping[str, Callable[[str], float]] = {
    "duration": parse_duration,
    "size": parse_size,
    "timestamp": _timestamp,
}
_WISHES = {
    "duration": "a duration such as 250ms, 30s or 10m",
    "size": "a size such as 64KiB or 100MiB",
    "timestamp": "a time such as 2027-01-31T12:00:00Z",
}
_READERS: Mapping[type[inspect.Type], Callable[[Node, inspect.Type], Any]] = {
    inspect.BoolType: _boolean,
    inspect.IntType: _integer,
    inspect.FloatType: _float,
    inspect.StrType: _text,
    inspect.LiteralType: _literal,
}
