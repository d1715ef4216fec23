"""Takes usage records from the request path and sees to it that every sink gets them.

`put` only appends to a list. Every FLUSH_SECONDS the list goes to one thread, which
writes it to the spool in one commit; then the couriers, one for each sink, carry it
out. Nothing that a disk or a receiver does can slow a request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import TypeVar, TypeVarTuple

from proxy.sinks.backlog import Backlog
from proxy.sinks.batch import Batch
from proxy.sinks.courier import Courier, Pauses
from proxy.sinks.sink import Sink
from proxy.usage.record import UsageRecord, to_lines

log = logging.getLogger(__name__)

T = TypeVar("T")
Args = TypeVarTuple("Args")

# What a `kill -9` may cost is what was put in this time and in that of one commit (some
# ms): together below 50 ms.
FLUSH_SECONDS = 0.03

# Written at once from here on, so that one row stays below some 250 KB. A round number, as batch sizes
# are: what a busy gateway writes at once goes out in whole requests, none of which is for a dozen.
FLUSH_RECORDS = 500

# Records that wait for a disk that hangs; the oldest are dropped, and counted.
MAX_WAITING = 10_000

TIDY_SECONDS = 1.0

DEFAULT_PAUSES = Pauses()

USUAL_BYTES = 512  # of a record, until some are seen that are longer on average

MAX_CLOSING = 5.0  # for the last commit and the checkpoint, after which a disk counts as hung


class Outbox:
    """`start`, then any number of `put`, then `close`."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        backlog: Backlog,
        random: Callable[[], float],
        pauses: Pauses = DEFAULT_PAUSES,
    ) -> None:
        self.backlog = backlog
        self.couriers = {sink.name: Courier(sink, self, random, pauses) for sink in sinks}
        self.accepted = 0
        self.dropped = 0  # because the thread could not keep up, or after the end
        self._waiting: deque[UsageRecord] = deque()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._records_writing = 0
        self._usual_bytes = USUAL_BYTES
        self._ids = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="usage")
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether what is put now would make something older go."""
        records = len(self._waiting) + self._records_writing
        return records >= MAX_WAITING or self.backlog.is_full(records * self._usual_bytes)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Drawn here, not earlier: worker processes may be forks of one another.
        self._id_prefix = f"{token_hex(8)}-"
        await self._in_thread(self.backlog.open)
        self._tasks = [self._loop.create_task(courier.run()) for courier in self.couriers.values()]
        self._tasks.append(self._loop.create_task(self._tidy()))
        for task in self._tasks:
            task.add_done_callback(_report)

    def new_id(self) -> str:
        """An id for a record, unlike any other of this or of another process, here or elsewhere.

        64 random bits name this run of the outbox: among a million runs, two have the same
        with a chance below 1 in 30 million. A number counts within it.
        """
        self._ids += 1
        return f"{self._id_prefix}{self._ids}"

    def put(self, record: UsageRecord) -> None:
        """Take a record; returns at once and never fails."""
        if self._is_closed:
            self.dropped += 1
            return
        self.accepted += 1
        self._waiting.append(record)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(FLUSH_SECONDS, self._flush)
        elif len(self._waiting) == FLUSH_RECORDS:
            self._flush()

    async def close(self, grace: float) -> None:
        """Write everything down, then deliver what can be delivered within `grace` seconds."""
        ends = self._loop.time() + grace
        self._flush()
        while self._writing is not None and self._loop.time() < ends:
            await asyncio.wait([self._writing], timeout=ends - self._loop.time())
            self._flush()
        self._is_closed = True
        self.dropped += len(self._waiting)
        *carrying, tidying = self._tasks
        for courier in self.couriers.values():
            courier.hurry()
        if carrying:
            await asyncio.wait(carrying, timeout=max(ends - self._loop.time(), 0))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*carrying, tidying, return_exceptions=True)
        for courier in self.couriers.values():
            await courier.sink.close()
        await asyncio.wait([self._in_thread(self.backlog.close)], timeout=MAX_CLOSING)
        self._executor.shutdown(wait=False)

    async def next(self, sink: str) -> Batch | None:
        return await self._in_thread(self.backlog.next, sink)

    async def acknowledge(self, sink: str, batch: Batch) -> None:
        await self._in_thread(self.backlog.acknowledge, sink, batch)

    async def set_aside(self, sink: str, lines: Sequence[bytes], reason: str) -> None:
        await self._in_thread(self.backlog.set_aside, sink, lines, reason)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._writing is None and self._waiting:
            records = list(self._waiting)
            self._waiting.clear()
            self._records_writing = len(records)
            self._writing = self._in_thread(self._write, records)
            self._writing.add_done_callback(self._written)

    def _write(self, records: list[UsageRecord]) -> None:
        """In the thread: what arrives in 30 ms is one row, unless the disk held it up for long."""
        for start in range(0, len(records), FLUSH_RECORDS):
            some = records[start : start + FLUSH_RECORDS]
            lines = to_lines(some)
            self._usual_bytes = max(self._usual_bytes, len(lines) // len(some))
            self.backlog.add(lines)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        self._records_writing = 0
        _report(writing)
        for courier in self.couriers.values():
            courier.notify()
        if self._flush_timer is None:  # it went off while this was being written
            self._flush()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            await self._in_thread(self.backlog.tidy)
            # It may have found records that an ended process left, or that are to be tried again.
            for name, courier in self.couriers.items():
                if self.backlog.stats[name].pending:
                    courier.notify()

    def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> asyncio.Future[T]:
        return self._loop.run_in_executor(self._executor, function, *args)


def _report(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and (exc := done.exception()) is not None:
        log.error("usage outbox failed", exc_info=exc)
