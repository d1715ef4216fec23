"""What an administrator may say of a key, checked before it is stored.

Every field has a reader that turns JSON into what its column holds; null or an
empty text puts the default back. Messages name the field and never its value.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

import orjson

from proxy.access import networks
from proxy.stores.record import moment
from proxy.stores.times import rfc3339

Column: TypeAlias = str | int | float | None
Fields: TypeAlias = Mapping[str, Any]

# Longer texts are no names, and lists beyond this are a mistake in somebody's script.
MAX_TEXT = 256
MAX_ITEMS = 1000
# The largest whole number that SQLite and every JSON reader keep exactly.
MAX_WHOLE = 2**53

_STATUSES = ("active", "disabled", "quota_exceeded", "expired")
_LIMITS = ("requests_per_second", "requests_per_minute", "burst_size", "tokens_per_minute", "max_concurrent")


class BadFields(ValueError):
    """Everything that is wrong with what was said of a key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def columns_of(fields: Fields) -> dict[str, Column]:
    """The columns that these fields set, or BadFields."""
    columns: dict[str, Column] = {}
    problems = []
    for name, value in fields.items():
        known = _READERS.get(name)
        if known is None:
            problems.append(
                f"there is no field {name}" if name.isidentifier() else "there is an unknown field"
            )
            continue
        reader, default, wish = known
        try:
            columns[name] = default if value is None or value == "" else reader(value)
        except (ValueError, TypeError, OverflowError, LookupError):
            problems.append(f"{name} must be {wish}")
    starts, ends = columns.get("starts_at"), columns.get("expires_at")
    if isinstance(starts, float) and isinstance(ends, float) and starts >= ends:
        problems.append("expires_at must be later than starts_at")
    if problems:
        raise BadFields(problems)
    return columns


def shown(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as an answer shows them."""
    found = {}
    for name, value in columns.items():
        if name in _JSON_COLUMNS:
            found[name] = orjson.loads(value) if value is not None else None
        elif name.endswith("_at"):
            found[name] = rfc3339(value) if value is not None else None
        else:
            found[name] = value
    return found


# -- readers -----------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        raise ValueError
    return value


def _status(value: Any) -> str:
    """A word, or its number in the Go LLMProxy."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return _STATUSES[value]
    return _one_of(_STATUSES)(value)


def _time(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return moment(value)


def _texts(value: Any) -> str:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise TypeError
    return _json([_text(item) for item in value])


def _networks(value: Any) -> str:
    texts = _texts(value)
    networks(value)
    return texts


def _labels(value: Any) -> str:
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        raise TypeError
    return _json({_text(name): _text(text) for name, text in value.items()})


def _limits(value: Any) -> str:
    if not isinstance(value, dict) or not value.keys() <= set(_LIMITS):
        raise TypeError
    for name, number in value.items():
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if number is not None and not (is_number and isfinite(number) and number >= 0):
            raise ValueError
        if name in ("burst_size", "max_concurrent") and isinstance(number, float):
            raise TypeError
    return _json({name: number for name, number in value.items() if number is not None})


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_WHOLE:
        raise ValueError
    return value


def _amount(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError
    return float(value)


def _one_of(words: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return read


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_A_TEXT = f"a text of at most {MAX_TEXT} characters"
_A_TIME = "a time such as 2027-01-31T12:00:00Z"
_A_WHOLE = "a whole number, 0 or more"
_NETWORKS = "a list of addresses or networks"
_UNITS = ("tokens", "requests")
_PERIODS = ("never", "daily", "weekly", "monthly")

_READERS: Mapping[str, tuple[Callable[[Any], Column], Column, str]] = {
    "name": (_text, "", _A_TEXT),
    "user_id": (_text, "", _A_TEXT),
    "status": (_status, "active", f"one of {', '.join(_STATUSES)}, or its number"),
    "starts_at": (_time, None, _A_TIME),
    "expires_at": (_time, None, _A_TIME),
    "allowed_models": (_texts, "[]", "a list of model names, * as wildcard"),
    "allowed_ips": (_networks, "[]", _NETWORKS),
    "denied_ips": (_networks, "[]", _NETWORKS),
    "limits": (_limits, None, f"an object with numbers for {', '.join(_LIMITS)}"),
    "labels": (_labels, "{}", "an object with texts"),
    "total_quota": (_whole, 0, _A_WHOLE),
    "used_quota": (_whole, 0, _A_WHOLE),
    "quota_unit": (_one_of(_UNITS), "tokens", f"one of {', '.join(_UNITS)}"),
    "quota_reset_period": (_one_of(_PERIODS), "never", f"one of {', '.join(_PERIODS)}"),
    "balance": (_amount, None, "a number"),
}
_JSON_COLUMNS = frozenset(("allowed_models", "allowed_ips", "denied_ips", "limits", "labels"))
