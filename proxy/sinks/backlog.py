"""What is not delivered yet: on disk while the disk works, else in bounded memory.

A full disk, a read-only one, a damaged file: records go on being taken and delivered
from memory, the spool is tried again every few seconds, and what memory holds moves
into it once it works. Everything here runs in one thread, the outbox's; the event
loop only reads the plain numbers of `stats`.
"""

import logging
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from proxy.clock import Clock, anchored
from proxy.sinks.batch import Batch
from proxy.sinks.slots import Slot, abandoned, claim
from proxy.sinks.spool import Spool, is_corrupt, move_aside

log = logging.getLogger(__name__)

# Records held in memory while the spool cannot be written: some 10 MB, and at 200 requests/s
# the better part of a minute, which is what a disk takes to be cleaned up or remounted.
MAX_HELD = 10_000

# Share of either bound from which on it counts as reached, and what must be free of a spool in any
# case: requests that run will still write, and the largest row takes 250 KB.
FULL = 0.99
MIN_ROOM = 256 * 1024

# Between two tries of a spool that does not work.
RETRY_SECONDS = 2.0

# Between two looks for spools that ended processes left; a restart normally finds its own.
ADOPT_SECONDS = 60.0

# What a receiver refused is offered again after this, in case it was the receiver's mistake.
REQUEUE_SECONDS = 6 * 3600.0

# Rows taken over from such a spool in one transaction.
ADOPT_ROWS = 64

# After these the file is still good to read from, and may be good to write to in a moment.
_PASSING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)

Failure = (sqlite3.Error, OSError)


@dataclass(slots=True)
class SinkStats:
    """For metrics: records that wait, the age of the oldest, records given up (bound or age reached)."""

    pending: int = 0
    oldest_age: float = 0.0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    directory: Path
    max_bytes: int = 1024 * 1024 * 1024  # two million records: a day of 25 requests/s
    max_age: float = 7 * 86400.0  # a receiver that is down for a long weekend loses nothing


class Backlog:
    """Keeps lines for each of `sinks`; without `options`, in memory only."""

    def __init__(
        self, sinks: Sequence[str], options: SpoolOptions | None, *, wall: Clock, monotonic: Clock
    ) -> None:
        self.stats = {sink: SinkStats() for sink in sinks}
        self.failures = 0  # of the spool
        self._sinks = sinks
        self._options = options
        self._spool: Spool | None = None
        self._slot: Slot | None = None
        self._held: deque[Batch] = deque()
        self._held_records = 0
        self._dropped = dict.fromkeys(sinks, 0)  # from memory, and by spools since closed
        self._broken = False  # whether the log says that the spool does not work
        self._monotonic = monotonic
        self._retry_at = self._adopt_at = monotonic()
        self._requeue_at = self._retry_at + REQUEUE_SECONDS
        self.now = anchored(wall, monotonic)

    @property
    def is_durable(self) -> bool:
        """Whether everything that was added is on disk."""
        return self._spool is not None and not self._held

    def is_full(self, coming: int = 0) -> bool:
        """Whether `coming` bytes, and what is added soon after, would make something older go."""
        spool = self._spool  # the thread may close it at any time
        if spool is not None and spool.bytes + coming >= min(
            FULL * spool.max_bytes, spool.max_bytes - MIN_ROOM
        ):
            return True
        return self._held_records >= FULL * MAX_HELD

    def open(self) -> None:
        """Open the spool, and take over what ended processes left in theirs."""
        self._recover()

    def add(self, lines: bytes) -> None:
        """Keep these lines, with line ends between them, for every sink."""
        if self._spool is not None and not self._held:
            try:
                self._spool.append([(self.now(), lines, ())])
                return
            except Failure as exc:
                self._lose(exc)
        self._hold(Batch(lines.split(b"\n"), self.now(), waiting=set(self._sinks)))
        self._recover()

    def next(self, sink: str) -> Batch | None:
        """What `sink` should have next: what is on disk first, for it is older."""
        if self._spool is not None:
            try:
                if (batch := self._spool.next(sink)) is not None:
                    return batch
            except Failure as exc:
                self._lose(exc)
        return next((batch for batch in self._held if sink in batch.waiting), None)

    def acknowledge(self, sink: str, batch: Batch) -> None:
        """`sink` has it, or will never have it."""
        batch.waiting.discard(sink)
        if self._spool is not None and batch.home is self._spool:
            try:
                self._spool.acknowledge(sink, batch)
            except Failure as exc:
                self._lose(exc)
        while self._held and not self._held[0].waiting:
            self._held_records -= len(self._held.popleft().lines)

    def set_aside(self, sink: str, lines: Sequence[bytes], reason: str) -> None:
        """Keep lines that a receiver refuses where somebody can look at them."""
        if self._spool is not None:
            try:
                self._spool.set_aside(sink, lines, reason)
            except Failure as exc:
                self._lose(exc)

    def tidy(self) -> None:
        """To be called every second or so."""
        if self._held or self._spool is None:
            self._recover()
        if self._spool is not None:
            try:
                if not self._spool.is_in_place():
                    raise FileNotFoundError(f"{self._spool.path} was moved or deleted")
                self._spool.tidy()
                self._adopt(self._spool)
                self._requeue(self._spool)
            except Failure as exc:
                self._lose(exc)
        self._refresh_stats()

    def adopt_soon(self) -> None:
        """A spool in the same folder was left just now; may be called from any thread."""
        self._adopt_at = self._monotonic()

    def close(self) -> None:
        self._retry_at = 0.0
        if self._held:
            self._recover()
        self._close_spool()
        if self._held:
            log.error("usage records lost at the end", extra={"records": self._held_records})

    def _recover(self) -> None:
        """Bring the spool back, if it is time to try, and move into it what memory holds."""
        if self._options is None or self._monotonic() < self._retry_at:
            return
        try:
            if self._spool is None:
                self._spool = self._open_spool(self._options)
                self._adopt(self._spool)
            entries = [
                (
                    batch.time,
                    b"\n".join(batch.lines),
                    [sink for sink in self._sinks if sink not in batch.waiting],
                )
                for batch in self._held
            ]
            for batch, row in zip(self._held, self._spool.append(entries), strict=True):
                batch.home, batch.row = self._spool, row
        except Failure as exc:
            self._lose(exc)
            return
        self._held.clear()
        self._held_records = 0
        if self._broken:
            log.warning("usage spool works again", extra={"path": str(self._spool.path)})
        self._broken = False

    def _open_spool(self, options: SpoolOptions) -> Spool:
        self._slot = claim(options.directory)
        return self._open_file(self._slot.path, options, self._sinks)

    def _open_file(self, path: Path, options: SpoolOptions, sinks: Sequence[str]) -> Spool:
        try:
            return Spool(path, sinks, max_bytes=options.max_bytes, max_age=options.max_age, clock=self.now)
        except sqlite3.Error as exc:
            if not is_corrupt(exc):
                raise
        self._move_aside(path)
        return Spool(path, sinks, max_bytes=options.max_bytes, max_age=options.max_age, clock=self.now)

    def _adopt(self, spool: Spool) -> None:
        """Take over what ended processes left in their spools, at most once a minute."""
        if self._options is None or self._monotonic() < self._adopt_at:
            return
        self._adopt_at = self._monotonic() + ADOPT_SECONDS
        for path in abandoned(self._options.directory):
            try:
                left = self._open_file(path, self._options, ())
            except Failure as exc:
                log.error("usage spool of an ended process cannot be read", extra={"reason": str(exc)})
                continue
            try:
                entries = left.entries()
                while some := list(islice(entries, ADOPT_ROWS)):
                    spool.append(some)
            finally:
                left.close()
            path.unlink()

    def _requeue(self, spool: Spool) -> None:
        if self._monotonic() >= self._requeue_at:
            self._requeue_at = self._monotonic() + REQUEUE_SECONDS
            spool.requeue()

    def _lose(self, exc: Exception) -> None:
        """The spool failed: keep reading it if it only cannot be written, else close it for now."""
        self.failures += 1
        self._retry_at = self._monotonic() + RETRY_SECONDS
        if not self._broken:
            log.error("usage spool failed, records are kept in memory", extra={"reason": str(exc)})
        self._broken = True
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _PASSING:
            return
        path = self._spool.path if self._spool is not None else None
        self._close_spool()
        if path is not None and is_corrupt(exc):
            with suppress(OSError):
                self._move_aside(path)
                self._retry_at = self._monotonic()

    def _close_spool(self) -> None:
        if self._spool is not None:
            for sink, records in self._spool.dropped.items():
                self._dropped[sink] += records
            with suppress(*Failure):
                self._spool.close()
            self._spool = None
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    def _move_aside(self, path: Path) -> None:
        mark = datetime.fromtimestamp(self.now(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        log.error("usage spool is damaged, moved aside", extra={"path": str(move_aside(path, mark))})

    def _hold(self, batch: Batch) -> None:
        self._held.append(batch)
        self._held_records += len(batch.lines)
        while self._held_records > MAX_HELD:
            oldest = self._held.popleft()
            self._held_records -= len(oldest.lines)
            for sink in oldest.waiting:
                self._dropped[sink] += len(oldest.lines)

    def _refresh_stats(self) -> None:
        for sink, stats in self.stats.items():
            held = [batch for batch in self._held if sink in batch.waiting]
            oldest = held[0].time if held else None
            pending, dropped = sum(len(batch.lines) for batch in held), self._dropped[sink]
            if self._spool is not None:
                pending += self._spool.pending[sink]
                dropped += self._spool.dropped[sink]
                with suppress(*Failure):
                    oldest = self._spool.oldest(sink) or oldest
            if dropped > stats.dropped:
                log.error("usage records dropped", extra={"sink": sink, "records": dropped - stats.dropped})
            stats.pending, stats.dropped = pending, dropped
            stats.oldest_age = max(self.now() - oldest, 0.0) if oldest else 0.0
