"""Usage records on disk, from the moment they are made until every sink has them.

One SQLite file, one thread, one row for all records of some 30 ms: a commit costs an
fsync, not a record. WAL with synchronous=FULL: what `append` returned from survives
`kill -9` and a power cut. Each sink has a cursor; it is saved with the next commit, so
after a crash a sink may get records a second time, with the same ids.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from proxy.sinks.batch import Batch

APPLICATION_ID = 0x4C4C4D75  # "LLMu", for `file` and for a curious operator
VERSION = 1

_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS batches (row INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,
    records INTEGER NOT NULL, done TEXT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, row INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS refused (sink TEXT NOT NULL, time REAL NOT NULL, reason TEXT NOT NULL,
    line BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""

# A whole check reads the whole file; 64 MiB take some 0.2 s, and a start must stay quick.
# A damaged page in a larger file shows when it is read.
MAX_CHECKED_BYTES = 64 * 1024 * 1024

# Rows joined into one batch for a sink, and records after which that stops: enough that a
# backlog of days drains quickly, few enough that little comes twice after an end in the middle of one.
MAX_ROWS = 64
MAX_RECORDS = 500

# A file's pages. SQLite writes each with two system calls, and a tenth of a second of a busy gateway's
# records fills forty of its usual 4 KiB; larger ones would cost a quiet gateway's disk more.
PAGE_BYTES = 16 * 1024

# Free pages kept for re-use, and how many more are given back to the file system in one go:
# 4 MiB, some 10 ms.
VACUUM_PAGES = 4 * 1024 * 1024 // PAGE_BYTES

# The write-ahead log goes into the file when it is so long: SQLite's usual 4 MiB.
LOG_PAGES = 4 * 1024 * 1024 // PAGE_BYTES

# Another process holds the file only while it takes over what an ended one left behind.
BUSY_SECONDS = 1.0

# Seconds after opening in which nothing is dropped for its age: what waited while no process ran, or looks
# old because a clock was set meanwhile, is offered before it goes. A receiver takes 1 GiB in less.
OFFERED_SECONDS = 3600.0

# (time, lines with line ends between them, sinks that have them already)
Entry = tuple[float, bytes, Collection[str]]


class Spool:
    """The open file. A method that raises sqlite3.Error or OSError has changed nothing."""

    def __init__(
        self, path: Path, sinks: Sequence[str], *, max_bytes: int, max_age: float, clock: Callable[[], float]
    ) -> None:
        self.path = path
        self._sinks = sinks
        self.max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._ages_from = clock() + min(max_age, OFFERED_SECONDS)
        self._db = _open(path)
        try:
            found = path.stat()
            self._identity = found.st_dev, found.st_ino
            self._load()
        except BaseException:
            self._db.close()
            raise

    def _load(self) -> None:
        self._cursors = dict.fromkeys(self._sinks, 0)
        self._cursors |= {
            sink: row
            for sink, row in self._db.execute("SELECT sink, row FROM cursors")
            if sink in self._sinks
        }
        self._saved: dict[str, int] = {}
        self._handed = dict(self._cursors)  # the last row handed out to each sink
        (self.bytes,) = self._db.execute("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM batches").fetchone()
        self.dropped = dict.fromkeys(self._sinks, 0)
        self.pending = dict.fromkeys(self._sinks, 0)
        for row, records, done in self._db.execute("SELECT row, records, done FROM batches"):
            self._count(self.pending, row, records, done)

    def append(self, entries: Iterable[Entry]) -> list[int]:
        """Write them in order and return their rows, all or nothing."""
        rows, added = [], 0
        pending = dict(self.pending)
        with self._transaction():
            for time, body, having in entries:
                records, done = body.count(b"\n") + 1, _done(having)
                row = self._db.execute(
                    "INSERT INTO batches (time, records, body, done) VALUES (?, ?, ?, ?)",
                    (time, records, body, done),
                ).lastrowid
                assert row is not None
                rows.append(row)
                added += len(body)
                self._count(pending, row, records, done)
            freed = self._save_cursors()
            dropped, freed_for_room = self._make_room(self.bytes + added - freed)
        self._saved = dict(self._cursors)
        self.pending = pending
        self._settle(dropped, added - freed - freed_for_room)
        return rows

    def next(self, sink: str) -> Batch | None:
        """What `sink` has not had, oldest first: the records of one row or of several."""
        while True:
            lines, oldest, last, rows = self._read(sink)
            if lines:
                self._handed[sink] = last
                return Batch(lines, oldest, self, last)
            if rows < MAX_ROWS:
                return None
            self._handed[sink] = self._cursors[sink] = last  # all of them are done for this sink

    def _read(self, sink: str) -> tuple[list[bytes], float, int, int]:
        lines: list[bytes] = []
        oldest, last, rows = 0.0, self._cursors[sink], 0
        for row, time, body, done in self._db.execute(
            "SELECT row, time, body, done FROM batches WHERE row > ? ORDER BY row LIMIT ?", (last, MAX_ROWS)
        ):
            last, rows = row, rows + 1
            if not _is_done(sink, done):
                oldest = oldest or time
                lines += body.split(b"\n")
            if len(lines) >= MAX_RECORDS:
                break
        return lines, oldest, last, rows

    def acknowledge(self, sink: str, batch: Batch) -> None:
        """`sink` has this batch; saved with the next commit."""
        if batch.row == self._handed[sink]:
            self._cursors[sink] = batch.row
        else:  # it was carried from memory when it moved in here, behind rows that are still to come
            with self._transaction():
                found = self._db.execute("SELECT done FROM batches WHERE row = ?", (batch.row,)).fetchone()
                having = {sink, *orjson.loads((found and found[0]) or "[]")}
                self._db.execute("UPDATE batches SET done = ? WHERE row = ?", (_done(having), batch.row))
        self.pending[sink] = max(self.pending[sink] - len(batch.lines), 0)

    def set_aside(self, sink: str, lines: Iterable[bytes], reason: str) -> None:
        """Keep what a receiver refuses where it is in nobody's way."""
        now = self._clock()
        with self._transaction():
            self._db.executemany(
                "INSERT INTO refused VALUES (?, ?, ?, ?)", [(sink, now, reason, line) for line in lines]
            )

    def requeue(self) -> None:
        """Put what was set aside in line again, for the sink that refused it."""
        found = self._db.execute(
            "SELECT rowid, sink, time, line FROM refused LIMIT ?", (MAX_RECORDS,)
        ).fetchall()
        entries = [(time, line, set(self._sinks) - {sink}) for _, sink, time, line in found]
        if entries:
            self.append(entries)
            self._db.executemany("DELETE FROM refused WHERE rowid = ?", [(rowid,) for rowid, *_ in found])

    def tidy(self) -> None:
        """Save the cursors, delete what all sinks have had or what is too old, give back space."""
        now = self._clock()
        expired = now - self._max_age if now >= self._ages_from else float("-inf")
        if (
            self._cursors != self._saved
            or self._is_older("batches", expired)
            or self._is_older("refused", expired)
        ):
            with self._transaction():
                freed = self._save_cursors()
                dropped, freed_by_age = self._drop("time < ?", expired)
                self._db.execute("DELETE FROM refused WHERE time < ?", (expired,))
            self._saved = dict(self._cursors)
            self._settle(dropped, -freed - freed_by_age)
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if free > VACUUM_PAGES:
            self._db.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()

    def oldest(self, sink: str) -> float | None:
        """The time of the oldest records that `sink` has not had."""
        query = "SELECT time FROM batches WHERE row > ? ORDER BY row LIMIT 1"
        found = self._db.execute(query, (self._cursors[sink],)).fetchone()
        return found[0] if found else None

    def entries(self) -> Iterator[Entry]:
        """Everything that is left, with the sinks that have had it, for another spool to take over."""
        had = [(sink, row) for sink, row in self._db.execute("SELECT sink, row FROM cursors")]
        for row, time, body, done in self._db.execute(
            "SELECT row, time, body, done FROM batches ORDER BY row"
        ):
            having = {sink for sink, cursor in had if row <= cursor} | set(orjson.loads(done or "[]"))
            yield time, body, having

    def is_in_place(self) -> bool:
        """Whether the path still names the open file: somebody may have moved or deleted it."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        try:
            self.tidy()
        finally:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _save_cursors(self) -> int:
        """Write the cursors and delete what all sinks have had; returns the bytes freed."""
        changed = [item for item in self._cursors.items() if self._saved.get(item[0]) != item[1]]
        if not changed:
            return 0
        self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?)", changed)
        return self._drop("row <= ?", min(self._cursors.values()))[1]

    def _make_room(self, size: int) -> tuple[dict[str, int], int]:
        """Drop the oldest rows until `size` bytes fit; returns records dropped and bytes freed."""
        excess, last = size - self.max_bytes, 0
        if excess <= 0:
            return {}, 0
        for row, length in self._db.execute("SELECT row, LENGTH(body) FROM batches ORDER BY row"):
            if excess <= 0:
                break
            excess, last = excess - length, row
        return self._drop("row <= ?", last)

    def _drop(self, condition: str, value: float) -> tuple[dict[str, int], int]:
        """Delete rows; returns how many records each sink will now never have, and the bytes freed."""
        dropped, freed = dict.fromkeys(self._sinks, 0), 0
        query = f"SELECT row, records, LENGTH(body), done FROM batches WHERE {condition}"
        for row, records, length, done in self._db.execute(query, (value,)):
            self._count(dropped, row, records, done)
            freed += length
        self._db.execute(f"DELETE FROM batches WHERE {condition}", (value,))
        return dropped, freed

    def _count(self, counts: dict[str, int], row: int, records: int, done: str | None) -> None:
        for sink in self._sinks:
            if row > self._cursors[sink] and not _is_done(sink, done):
                counts[sink] += records

    def _settle(self, dropped: dict[str, int], growth: int) -> None:
        self.bytes += growth
        for sink, records in dropped.items():
            self.dropped[sink] += records
            self.pending[sink] = max(self.pending[sink] - records, 0)

    def _is_older(self, table: str, time: float) -> bool:
        found = self._db.execute(f"SELECT time FROM {table} ORDER BY rowid LIMIT 1").fetchone()
        return found is not None and found[0] < time


def _open(path: Path) -> sqlite3.Connection:
    # SQLite gives its other files the mode of this one; records name users.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file; another stays as it is
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError("this file system cannot hold a write-ahead log")
        db.execute("PRAGMA synchronous = FULL")
        # Some builds of SQLite fill what is deleted with zeros, and write that to the disk: twice the bytes.
        db.execute("PRAGMA secure_delete = FAST")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if path.stat().st_size <= MAX_CHECKED_BYTES and db.execute("PRAGMA quick_check(1)").fetchone() != (
            "ok",
        ):
            raise _corrupt("the check found damage")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.OperationalError(f"the spool has version {version}, this program writes {VERSION}")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_corrupt(error: BaseException) -> bool:
    """Whether the file itself is damaged, rather than the disk full, slow or not ours to write."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def move_aside(path: Path, mark: str) -> Path:
    """Rename a damaged spool, with its log, so that nothing of it is lost or in the way."""
    target = path.with_name(f"{path.name}.corrupt-{mark}")
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(target.with_name(target.name + suffix))
    return target


def _done(having: Collection[str]) -> str | None:
    return orjson.dumps(sorted(having)).decode() if having else None


def _is_done(sink: str, done: str | None) -> bool:
    return done is not None and sink in orjson.loads(done)
