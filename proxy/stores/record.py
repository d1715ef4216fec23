"""A key's record as other programs write it: a Redis hash, a database row, a webhook's JSON.

The same names as in a key file, but numbers may be text, lists may be JSON or
separated by commas, and times are whatever their language makes of them. What
cannot be understood is an error and never a wider permission.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any, TypeVar, cast

import orjson

from proxy.access import Credential, KeyLimits, Networks, Period, Quota, Status, Unit, key_id, networks

# The end of the year 9999, the last that has a date; milliseconds by mistake lie far beyond it.
LAST_MOMENT = 253_402_300_800.0

Record = Mapping[str, Any]
Value = TypeVar("Value")

# As the Go LLMProxy numbers them.
_STATUS_NUMBERS: Mapping[str, Status] = {
    "0": "active",
    "1": "disabled",
    "2": "quota_exceeded",
    "3": "expired",
}
_STATUSES = frozenset(_STATUS_NUMBERS.values())
_PERIODS = ("never", "daily", "weekly", "monthly")
_UNITS = ("tokens", "requests")


class BadRecord(ValueError):
    """A field that nobody can read; the text names it and not what is in it."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} cannot be read")


def credential_of(record: Record, digest: bytes, *, source: str, handle: str = "") -> Credential:
    """The credential that a record describes, or BadRecord."""
    return Credential(
        key_id=key_id(digest),
        digest=digest,
        name=_read(record, "name", _text, ""),
        user_id=_read(record, "user_id", _text, ""),
        status=_read(record, "status", _status, "active"),
        starts_at=_read(record, "starts_at", moment, None),
        expires_at=_read(record, "expires_at", moment, None),
        allowed_models=_read(record, "allowed_models", _models, ()),
        allowed_ips=_read(record, "allowed_ips", _networks, ()),
        denied_ips=_read(record, "denied_ips", _networks, ()),
        limits=_read(record, "limits", _limits, None),
        labels=_read(record, "labels", _labels, {}),
        quota=_quota(record),
        balance=_read(record, "balance", _balance, None),
        source=source,
        handle=handle,
    )


def _read(record: Record, field: str, reader: Callable[[Any], Value], default: Value) -> Value:
    value = record.get(field)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value == "":
        return default
    try:
        return reader(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        raise BadRecord(field) from None


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        raise TypeError
    # Half a character, which Python and some databases can hold, is one that no JSON and no store takes.
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _status(value: Any) -> Status:
    """A word or a number nobody knows lets nobody in."""
    if isinstance(value, bool):
        return "active" if value else "disabled"
    text = str(int(value)) if isinstance(value, int | float | Decimal) else str(value).strip().lower()
    text = _STATUS_NUMBERS.get(text, text)
    return text if text in _STATUSES else "disabled"


def moment(value: Any) -> float | None:
    """Unix seconds; the first moment of an era, which some languages write for none at all, is None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        seconds = (value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    elif isinstance(value, date):
        seconds = datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    else:
        seconds = float(value)
    if not seconds < LAST_MOMENT:
        raise ValueError
    return seconds if seconds > 0 else None


def _items(value: Any) -> Iterable[Any]:
    """A list, a JSON list, or words between commas."""
    if isinstance(value, str):
        value = orjson.loads(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list | tuple | set | frozenset):
        raise TypeError
    return value


def _models(value: Any) -> tuple[str, ...]:
    items = list(_items(value))
    if not all(isinstance(item, str) for item in items):
        raise TypeError
    return tuple(item.strip() for item in items if item.strip())


def _networks(value: Any) -> Networks:
    """Text, or the address types of a database."""
    return networks(str(item) for item in _items(value) if item != "")


def _balance(value: Any) -> float:
    amount = float(value)
    if not isfinite(amount):
        raise ValueError
    return amount


def _mapping(value: Any) -> Mapping[str, Any]:
    found = orjson.loads(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise TypeError
    return found


def _labels(value: Any) -> Mapping[str, str]:
    return {str(name): _text(text) for name, text in _mapping(value).items()}


def _limits(value: Any) -> KeyLimits:
    """A field that is misspelled would be a limit that is not kept, so it is an error."""
    found = _mapping(value)
    if not found.keys() <= KeyLimits.__dataclass_fields__.keys():
        raise ValueError
    return KeyLimits(
        requests_per_second=_read(found, "requests_per_second", _number, None),
        requests_per_minute=_read(found, "requests_per_minute", _number, None),
        burst_size=_read(found, "burst_size", _whole, None),
        tokens_per_minute=_read(found, "tokens_per_minute", _number, None),
        max_concurrent=_read(found, "max_concurrent", _whole, None),
    )


def _number(value: Any) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    """Whole numbers stay exact however they are written: `12`, 12, 12.0 or a decimal."""
    number = value if isinstance(value, int) else Decimal(str(value))
    if not number >= 0 or number != int(number):
        raise ValueError
    return int(number)


def _quota(record: Record) -> Quota | None:
    total = _read(record, "total_quota", _whole, 0)
    if not total:
        return None
    return Quota(
        total,
        _read(record, "used_quota", _whole, 0),
        cast(Unit, _read(record, "quota_unit", lambda value: _one_of(value, _UNITS), "tokens")),
        cast(Period, _read(record, "quota_reset_period", lambda value: _one_of(value, _PERIODS), "never")),
        _read(record, "last_reset_at", moment, None),
    )


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError
    return str(value)
