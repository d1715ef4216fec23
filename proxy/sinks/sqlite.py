"""Usage records in a table of a local SQLite file, kept for some days."""

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.clock import Clock, anchored
from proxy.sinks.rows import TABLE, readable_rows
from proxy.sinks.sink import Delivery

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL, timestamp TEXT NOT NULL,
    user_id TEXT, key_id TEXT, key_name TEXT, session TEXT,
    model TEXT NOT NULL, upstream_model TEXT, method TEXT NOT NULL, path TEXT NOT NULL,
    is_stream INTEGER NOT NULL, pool TEXT NOT NULL, backend TEXT NOT NULL, backend_url TEXT NOT NULL,
    response_id TEXT, status_code INTEGER NOT NULL, outcome TEXT NOT NULL,
    latency_ms INTEGER NOT NULL, ttfb_ms INTEGER, attempts INTEGER NOT NULL, tool_calls INTEGER NOT NULL,
    prompt_tokens INTEGER, completion_tokens INTEGER, total_tokens INTEGER,
    cached_tokens INTEGER, reasoning_tokens INTEGER,
    estimated INTEGER NOT NULL, incomplete INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {TABLE}_timestamp ON {TABLE} (timestamp);
CREATE INDEX IF NOT EXISTS {TABLE}_key ON {TABLE} (key_id, timestamp);
CREATE INDEX IF NOT EXISTS {TABLE}_user ON {TABLE} (user_id, timestamp);
"""

# Old rows are deleted this often, at the next delivery.
CLEANING_SECONDS = 3600.0

# Workers write to one file in turn; a commit takes some ms.
BUSY_SECONDS = 5.0

DAY = 86400.0


class SqliteTable:
    """`timestamp` is UTC text of one width, so it sorts and SQLite's date functions read it.

    With `retention_days` 0, everything is kept.
    """

    def __init__(
        self, name: str, *, path: str | Path, retention_days: float = 0, clock: Clock | None = None
    ) -> None:
        self.name = name
        self._path = Path(path)
        self._retention_days = retention_days
        self._clock = clock or anchored()
        self._cleaned = 0.0
        self._db: sqlite3.Connection | None = None

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        return await asyncio.to_thread(self._insert, lines)

    async def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _insert(self, lines: Sequence[bytes]) -> Delivery:
        rows, unreadable = readable_rows(lines)
        try:
            if self._db is None:
                self._db = _open(self._path)
            with self._db:
                self._db.executemany(_statement(rows), [_as_text(row) for row in rows])
            self._clean(self._db)
        except (sqlite3.Error, OSError) as exc:
            if self._db is not None:
                self._db.close()
                self._db = None
            return Delivery(left=lines, reason=str(exc))
        return Delivery(left=unreadable, refused=unreadable, reason="unreadable record" if unreadable else "")

    def _clean(self, db: sqlite3.Connection) -> None:
        now = self._clock()
        if not self._retention_days or abs(now - self._cleaned) < CLEANING_SECONDS:
            return
        self._cleaned = now
        oldest = datetime.fromtimestamp(now - self._retention_days * DAY, UTC)
        with db:
            db.execute(f"DELETE FROM {TABLE} WHERE timestamp < ?", (_text(oldest),))


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _statement(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0]) if rows else ["id"]
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT OR IGNORE INTO {TABLE} ({', '.join(names)}) VALUES ({values})"


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "timestamp": _text(row["timestamp"])}


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
