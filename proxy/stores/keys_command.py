"""What the `llmproxy keys` commands print.

`new` and `hash` need no file, `list` shows what a configuration knows, and the
calls of the administration API work on the built-in database directly.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from json import JSONDecodeError, dumps, loads
from pathlib import Path
from typing import Any

from proxy.access import Credential, digest
from proxy.config.problems import shown_key
from proxy.config.values import bad_key
from proxy.stores.key_book import Audited, KeyBook
from proxy.stores.key_calls import CALLS, Json, KeyCalls
from proxy.stores.key_fields import BadFields
from proxy.stores.key_table import KeyTable
from proxy.stores.new_key import Random, new_key

_COLUMNS = ("ID", "NAME", "USER", "STATUS", "EXPIRES", "MODELS", "QUOTA")


def new_text(random: Random, *, name: str = "", user_id: str = "") -> str:
    """A new key, once, and the entry that lets it in."""
    key = new_key(random)
    lines = [f"  - sha256: {digest(key.encode()).hex()}"]
    lines += [
        f"    {field}: {dumps(value)}" for field, value in (("name", name), ("user_id", user_id)) if value
    ]
    entry = "\n".join(lines)
    return (
        f"{key}\n\n"
        f"Hand the line above to whoever will use it; it is shown only now.\n"
        f"Below `keys:` in the key file belongs:\n\n{entry}\n"
    )


def hash_text(keys: Iterable[str]) -> str:
    """The digests of keys, one per line; ValueError if one could never come in a header."""
    return "".join(f"{_digest(key.strip())}\n" for key in keys if key.strip())


def list_text(tables: Iterable[KeyTable], now: float) -> str:
    """All keys as a table, without anything that would let somebody in."""
    known: dict[str, Credential] = {}
    for table in tables:
        for credential in table.credentials():
            known.setdefault(credential.key_id, credential)
    rows = [_COLUMNS, *(_row(credential, now) for credential in known.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "".join(_line(row, widths) + "\n" for row in rows)


def database_table(path: Path, audited: Audited) -> KeyTable:
    """The keys of a built-in database, for `list_text`; none where there is no such file yet."""
    if not path.exists():
        return KeyTable("builtin")
    book = KeyBook.open(path, audited)
    try:
        return KeyTable("builtin", ((found.digest, found) for found in book.credentials("builtin")))
    finally:
        book.close()


def call_text(
    path: Path, action: str, request: Json, *, who: str, at: float, random: Random, audited: Audited
) -> str:
    """Carry out a call of the administration API; its answer, after the key if one was made."""
    book = KeyBook.open(path, audited)
    try:
        answer = dict(CALLS[action](KeyCalls(book, who=who, at=at, random=random), request))
    finally:
        book.close()
    key = answer.pop("key", None)
    shown = dumps(answer, indent=2, ensure_ascii=False)
    return f"{key}\n\nThe key is shown only now.\n\n{shown}\n" if key else f"{shown}\n"


def request_of(words: Iterable[str]) -> dict[str, Any]:
    """A call's request from `field=value` words; lists with commas, objects and numbers as JSON."""
    request: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadFields(["write field=value"])
        request[name] = _value(name, value)
    return request


_TEXTS = frozenset(
    (
        *("name", "user_id", "status", "starts_at", "expires_at", "quota_unit", "quota_reset_period"),
        *("key", "sha256", "key_id", "keep", "mode"),
    )
)
_LISTS = frozenset(("allowed_models", "allowed_ips", "denied_ips"))


def _value(name: str, value: str) -> Any:
    if name in _TEXTS or not value:
        return value
    if name in _LISTS:
        return value.split(",")
    try:
        return loads(value)
    except JSONDecodeError:
        raise BadFields([f"{shown_key(name)} must be JSON: a number, or an object in quotes"]) from None


def _digest(key: str) -> str:
    problem = bad_key(key)
    if problem:
        raise ValueError(problem)
    return digest(key.encode()).hex()


def _row(credential: Credential, now: float) -> tuple[str, ...]:
    quota = credential.quota
    return (
        credential.key_id,
        _printable(credential.name),
        _printable(credential.user_id),
        _status(credential, now),
        _date(credential.expires_at),
        _printable(",".join(credential.allowed_models) or "all"),
        f"{quota.used_at(now)}/{quota.total} {quota.unit}" if quota else "-",
    )


def _status(credential: Credential, now: float) -> str:
    if credential.status == "active" and credential.starts_at is not None and now < credential.starts_at:
        return "not started"
    if credential.status == "active" and credential.expires_at is not None and now >= credential.expires_at:
        return "expired"
    return credential.status


def _printable(text: str) -> str:
    """Text that cannot move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in text) or "-"


def _date(moment: float | None) -> str:
    return "-" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
