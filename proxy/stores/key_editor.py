"""Changes to the built-in key database, each with its line in the audit log.

The log says who changed what and when, with the values before and after. It
holds no key and no digest: a key is called by its id.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from proxy.access import key_id
from proxy.stores.key_book import KeyBook
from proxy.stores.key_fields import Column, shown

# While a key is exchanged it has two digests; a third would be one that was forgotten.
MAX_DIGESTS = 2

Columns = Mapping[str, Column]
SyncMode = Literal["full", "incremental"]


class NoSuchKey(LookupError):
    """There is no such key."""


class KeyExists(Exception):
    """The key, or another one with its id, is there already."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a synchronisation has changed."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


class KeyEditor:
    """Changes keys on behalf of somebody, at some time."""

    def __init__(self, book: KeyBook, who: str, at: float) -> None:
        self._book = book
        self._who = who
        self._at = at

    def create(self, digest: bytes, columns: Columns) -> str:
        """A new key; its id."""
        with self._book.transaction(is_durable=True):
            return self._create(digest, columns)

    def update(self, name: str, columns: Columns) -> bool:
        """Set these columns; whether that changed anything."""
        with self._book.transaction(is_durable=True):
            return self._update(name, columns)

    def delete(self, name: str) -> None:
        with self._book.transaction(is_durable=True):
            self._delete(name)

    def rotate(self, name: str, digest: bytes, *, keep_until: float) -> None:
        """Give a key a new digest; the one it had is valid until then."""
        book = self._book
        with book.transaction(is_durable=True):
            self._require(name)
            if book.key_id_of(digest) is not None:
                raise KeyExists
            book.execute(
                "UPDATE digests SET expires_at = min(coalesce(expires_at, ?1), ?1) WHERE key_id = ?2",
                (keep_until, name),
            )
            book.execute(
                """DELETE FROM digests WHERE key_id = ?1 AND (expires_at <= ?2 OR digest NOT IN (
                     SELECT digest FROM digests WHERE key_id = ?1
                     ORDER BY created_at DESC, rowid DESC LIMIT ?3))""",
                (name, self._at, MAX_DIGESTS - 1),
            )
            self._add_digest(name, digest)
            book.execute("UPDATE keys SET updated_at = ? WHERE key_id = ?", (self._at, name))
            self._record("rotate", name, shown({"expires_at": keep_until}))

    def sync(self, entries: Iterable[tuple[bytes, Columns]], mode: SyncMode) -> Synced:
        """Make the database hold these keys, all or none of them; `full` deletes every other key."""
        with self._book.transaction(is_durable=True):
            outcomes = [self._put(digest, columns) for digest, columns in entries]
            others = self._others(name for name, _ in outcomes) if mode == "full" else []
            for name in others:
                self._delete(name)
        count = [outcome for _, outcome in outcomes].count
        return Synced(count("created"), count("updated"), len(others), count("unchanged"))

    # -- inside a transaction ----------------------------------------------------

    def _create(self, digest: bytes, columns: Columns) -> str:
        name = key_id(digest)
        if self._book.row(name) is not None or self._book.key_id_of(digest) is not None:
            raise KeyExists
        values = {
            "key_id": name,
            **self._dated(columns),
            "created_at": self._at,
            "updated_at": self._at,
        }
        places = ", ".join("?" * len(values))
        self._book.execute(
            f"INSERT INTO keys ({', '.join(values)}) VALUES ({places})", tuple(values.values())
        )
        self._add_digest(name, digest)
        self._record("create", name, shown(columns))
        return name

    def _update(self, name: str, columns: Columns) -> bool:
        row = self._require(name)
        changed = {column: value for column, value in columns.items() if row[column] != value}
        if not changed:
            return False
        values = {**self._dated(changed), "updated_at": self._at}
        settings = ", ".join(f"{column} = ?" for column in values)
        self._book.execute(f"UPDATE keys SET {settings} WHERE key_id = ?", (*values.values(), name))
        before, after = shown({column: row[column] for column in changed}), shown(changed)
        self._record("update", name, {column: [before[column], after[column]] for column in changed})
        return True

    def _delete(self, name: str) -> None:
        self._require(name)
        self._book.execute("DELETE FROM keys WHERE key_id = ?", (name,))
        self._record("delete", name, {})

    def _put(self, digest: bytes, columns: Columns) -> tuple[str, str]:
        name = self._book.key_id_of(digest)
        if name is None:
            return self._create(digest, columns), "created"
        return name, "updated" if self._update(name, columns) else "unchanged"

    def _others(self, names: Iterable[str]) -> list[str]:
        kept = set(names)
        rows = self._book.execute("SELECT key_id FROM keys").fetchall()
        return [row["key_id"] for row in rows if row["key_id"] not in kept]

    def _require(self, name: str) -> Any:
        row = self._book.row(name)
        if row is None:
            raise NoSuchKey
        return row

    def _dated(self, columns: Columns) -> Columns:
        """A use that is written belongs to the period in which it was written."""
        return {**columns, "last_reset_at": self._at} if "used_quota" in columns else columns

    def _add_digest(self, name: str, digest: bytes) -> None:
        self._book.execute(
            "INSERT INTO digests (digest, key_id, created_at) VALUES (?, ?, ?)", (digest, name, self._at)
        )

    def _record(self, action: str, name: str, changes: Mapping[str, Any]) -> None:
        self._book.record(
            {"at": self._at, "who": self._who, "action": action, "key_id": name, "changes": changes}
        )
