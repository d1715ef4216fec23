"""The built-in key database: one SQLite file, digests only.

Everything here blocks; the event loop reaches it through a thread
(`key_database`), commands reach it directly. Times come from the caller.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from proxy.access import Credential, Quota
from proxy.stores.key_fields import shown
from proxy.stores.key_schema import TABLES, VERSION
from proxy.stores.record import credential_of

# Other processes hold the file's lock for one transaction, some milliseconds.
BUSY_SECONDS = 5.0

AuditEntry = Mapping[str, Any]
Audited = Callable[[AuditEntry], None]


class NewerDatabase(Exception):
    """The file was written by a newer version of this program."""


class KeyBook:
    """Keys by id, each with one or two digests; `audited` hears of every change once it is safe."""

    def __init__(self, connection: sqlite3.Connection, audited: Audited) -> None:
        self._connection = connection
        self._audited = audited
        self._entries: list[AuditEntry] = []

    @classmethod
    def open(cls, path: Path, audited: Audited) -> "KeyBook":
        """The book in that file, made if need be; nobody else may read it."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, audited)

    def close(self) -> None:
        self._connection.close()

    # -- what requests need --------------------------------------------------

    def find(self, digest: bytes, source: str) -> Credential | None:
        query = """SELECT keys.*, digests.expires_at AS digest_ends
                   FROM digests JOIN keys USING (key_id) WHERE digest = ?"""
        row = self._connection.execute(query, (digest,)).fetchone()
        if row is None:
            return None
        credential = credential_of(dict(row), digest, source=source, handle=row["key_id"])
        return replace(credential, key_id=row["key_id"]).ending(row["digest_ends"])

    def credentials(self, source: str) -> Iterator[Credential]:
        """Every key once, by its newest digest."""
        newest = """SELECT digest FROM digests WHERE digests.key_id = keys.key_id
                    ORDER BY created_at DESC, rowid DESC LIMIT 1"""
        query = f"SELECT ({newest}) AS digest FROM keys ORDER BY created_at, rowid"
        for row in self._connection.execute(query).fetchall():
            if found := self.find(row["digest"], source):
                yield found

    def debit(self, key_id: str, amount: int, now: float) -> Quota | None:
        """Count what was used; the quota as it is then, None if there is none."""
        with self.transaction():
            row = self.row(key_id)
            quota = _quota(row) if row is not None else None
            if quota is None:
                return None
            debited = quota.debited(amount, now)
            self.execute(
                "UPDATE keys SET used_quota = ?, last_reset_at = ? WHERE key_id = ?",
                (debited.used, debited.last_reset_at, key_id),
            )
        return debited

    # -- what administrators read --------------------------------------------

    def get(self, key_id: str, now: float) -> Mapping[str, Any] | None:
        """A key as it may be shown."""
        row = self.row(key_id)
        return None if row is None else self._shown(row, now)

    def page(self, offset: int, limit: int, now: float) -> tuple[list[Mapping[str, Any]], int]:
        """Some keys, newest first, and how many there are."""
        query = "SELECT * FROM keys ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?"
        rows = self.execute(query, (limit, offset)).fetchall()
        total = self.execute("SELECT count(*) FROM keys").fetchone()[0]
        return [self._shown(row, now) for row in rows], total

    def key_id_of(self, digest: bytes) -> str | None:
        row = self.execute("SELECT key_id FROM digests WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else str(row["key_id"])

    def history(self, limit: int) -> list[AuditEntry]:
        """The last changes, newest first."""
        rows = self.execute("SELECT * FROM audit ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [{**dict(row), "changes": orjson.loads(row["changes"])} for row in rows]

    # -- what keys of files have used ------------------------------------------

    def file_uses(self) -> list[tuple[str, str, int, float | None]]:
        rows = self.execute("SELECT key_id, seed, used_quota, last_reset_at FROM file_use").fetchall()
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    def keep_file_uses(self, uses: Iterable[tuple[str, str, int, float | None]]) -> None:
        with self.transaction():
            self._connection.executemany("INSERT OR REPLACE INTO file_use VALUES (?, ?, ?, ?)", uses)

    # -- for editors -------------------------------------------------------------

    @contextmanager
    def transaction(self, *, is_durable: bool = False) -> Iterator[None]:
        """All or nothing; a durable one survives even a power cut."""
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._entries.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        entries, self._entries = self._entries, []
        for entry in entries:
            self._audited(entry)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def row(self, key_id: str) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.execute("SELECT * FROM keys WHERE key_id = ?", (key_id,)).fetchone()
        return found

    def record(self, entry: AuditEntry) -> None:
        """Write an audit entry, in the transaction of the change itself."""
        self.execute(
            "INSERT INTO audit (at, who, action, key_id, changes) VALUES (?, ?, ?, ?, ?)",
            (
                entry["at"],
                entry["who"],
                entry["action"],
                entry["key_id"],
                orjson.dumps(entry["changes"]).decode(),
            ),
        )
        self._entries.append(entry)

    def _shown(self, row: sqlite3.Row, now: float) -> Mapping[str, Any]:
        quota = _quota(row)
        used = quota.used_at(now) if quota else row["used_quota"]
        query = (
            "SELECT expires_at, created_at FROM digests WHERE key_id = ? ORDER BY created_at DESC, rowid DESC"
        )
        digests = self.execute(query, (row["key_id"],)).fetchall()
        return {
            **shown({**dict(row), "used_quota": used}),
            "digests": [shown(dict(digest)) for digest in digests],
        }


def _quota(row: sqlite3.Row) -> Quota | None:
    return credential_of(dict(row), b"", source="").quota


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or find them; another process may be at it too."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return  # without a lock, which a long change may be holding
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise NewerDatabase
        if version == 0:
            for statement in _statements(TABLES):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would end our transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
