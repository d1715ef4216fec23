"""What an administrator may ask for, as the HTTP API and the command line share it.

A call takes a JSON object and returns one. A key is named by itself (`key`), by
its SHA-256 (`sha256`) or by its id (`key_id`), and is shown only by the call
that made it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from proxy.access import digest
from proxy.config.units import parse_duration
from proxy.config.values import bad_key, bad_sha256
from proxy.stores.key_book import KeyBook
from proxy.stores.key_editor import Columns, KeyEditor, NoSuchKey
from proxy.stores.key_fields import BadFields, columns_of
from proxy.stores.new_key import Random, new_key

Json: TypeAlias = Mapping[str, Any]

# As the Go LLMProxy pages its list.
PAGE = 20
MAX_PAGE = 100
# Changes that one look into the audit log shows.
MAX_HISTORY = 1000
# How long a key that is exchanged stays valid where nobody says: everybody has a day to change it.
KEEP = "24h"

_NAMES = ("key", "sha256", "key_id")


class KeyCalls:
    """One administrator's calls at one moment; all of them block."""

    def __init__(self, book: KeyBook, *, who: str, at: float, random: Random) -> None:
        self._book = book
        self._at = at
        self._random = random
        self._editor = KeyEditor(book, who, at)

    def create(self, request: Json) -> Json:
        """A key that is given, or a new one."""
        made = None if request.keys() & {"key", "sha256"} else new_key(self._random)
        found = digest(made.encode()) if made is not None else _digest(request)
        columns = columns_of(_fields(request, "key", "sha256"))
        name = self._editor.create(found, columns)
        return {"key": made, **self._shown(name)} if made is not None else self._shown(name)

    def update(self, request: Json) -> Json:
        name = self._name(request)
        self._editor.update(name, columns_of(_fields(request, *_NAMES)))
        return self._shown(name)

    def delete(self, request: Json) -> Json:
        name = self._name(request)
        self._editor.delete(name)
        return {"key_id": name}

    def rotate(self, request: Json) -> Json:
        """A new key in a known one's place; the old one stays valid for a while."""
        name = self._name(request)
        kept = _duration(request.get("keep", KEEP))
        made = new_key(self._random)
        self._editor.rotate(name, digest(made.encode()), keep_until=self._at + kept)
        return {"key": made, **self._shown(name)}

    def get(self, request: Json) -> Json:
        return self._shown(self._name(request))

    def list(self, request: Json) -> Json:
        offset = _number(request, "offset", 0, at_least=0)
        limit = min(_number(request, "limit", PAGE, at_least=1), MAX_PAGE)
        keys, total = self._book.page(offset, limit, self._at)
        return {"keys": keys, "total": total, "offset": offset, "limit": limit}

    def sync(self, request: Json) -> Json:
        """Make the database hold these keys; `full` deletes all others."""
        mode, keys = request.get("mode", "incremental"), request.get("keys")
        if mode not in ("full", "incremental"):
            raise BadFields(["mode must be full or incremental"])
        if not isinstance(keys, list):
            raise BadFields(["keys must be a list"])
        return asdict(self._editor.sync(_entries(keys), mode))

    def audit(self, request: Json) -> Json:
        """The last changes, newest first."""
        limit = min(_number(request, "limit", PAGE, at_least=1), MAX_HISTORY)
        return {"changes": self._book.history(limit)}

    def _name(self, request: Json) -> str:
        """The id of the one key that a request names; NoSuchKey if there is none."""
        if isinstance(request.get("key_id"), str) and not request.keys() & {"key", "sha256"}:
            name = request["key_id"]
            known = self._book.row(name) is not None
        else:
            name = self._book.key_id_of(_digest(request))
            known = name is not None
        if not known:
            raise NoSuchKey
        return str(name)

    def _shown(self, name: str) -> Json:
        found = self._book.get(name, self._at)
        if found is None:
            raise NoSuchKey
        return found


CALLS: Mapping[str, Callable[[KeyCalls, Json], Json]] = {
    "create": KeyCalls.create,
    "update": KeyCalls.update,
    "delete": KeyCalls.delete,
    "rotate": KeyCalls.rotate,
    "get": KeyCalls.get,
    "list": KeyCalls.list,
    "sync": KeyCalls.sync,
    "audit": KeyCalls.audit,
}
# Those that change nothing.
READS = frozenset(("get", "list", "audit"))


def _fields(request: Json, *names: str) -> Json:
    return {name: value for name, value in request.items() if name not in names}


def _digest(request: Json) -> bytes:
    """The digest of the key that is named, or BadFields."""
    key, hexed = request.get("key"), request.get("sha256")
    if isinstance(key, str) and hexed is None and not bad_key(key):
        return digest(key.encode())
    if isinstance(hexed, str) and key is None and not bad_sha256(hexed):
        return bytes.fromhex(hexed)
    raise BadFields(["name one key: key (visible ASCII characters), sha256 (64 hex digits) or key_id"])


def _entries(keys: "list[Any]") -> "list[tuple[bytes, Columns]]":
    """Every entry checked before any is stored."""
    entries: list[tuple[bytes, Columns]] = []
    problems: list[str] = []
    for index, key in enumerate(keys):
        try:
            if not isinstance(key, dict):
                raise BadFields(["must be an object"])
            entries.append((_digest(key), columns_of(_fields(key, "key", "sha256"))))
        except BadFields as error:
            problems += [f"keys[{index}]: {problem}" for problem in error.problems]
    if problems:
        raise BadFields(problems)
    return entries


def _number(request: Json, name: str, default: int, *, at_least: int) -> int:
    value = request.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise BadFields([f"{name} must be a whole number, {at_least} or more"])
    return value


def _duration(value: Any) -> float:
    try:
        return parse_duration(str(value))
    except ValueError:
        raise BadFields(["keep must be a duration such as 24h"]) from None
