"""Carries records to one sink, in order, for as long as it takes.

A sink that fails is tried again after a growing, jittered pause, or when it said it
wants to be. What a receiver refuses again and again while it is up (a 400, say) is sent
one by one to find the culprit, which is then set aside for some hours so that the rest
can pass.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from proxy.sinks.batch import Batch
from proxy.sinks.sink import Delivery, Sink
from proxy.sinks.spool import MAX_RECORDS

log = logging.getLogger(__name__)

MAX_RETRY_AFTER = 3600.0  # a receiver may ask for an hour, not for ever

# So many refusals in a row, and records are sent singly; so many more, and those that are
# still refused are set aside: with the default pauses, after some four minutes.
MAX_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between tries; they double from `first` to `longest`."""

    first: float = 0.5
    longest: float = 60.0  # a receiver that is back should not wait longer for its records
    # Between two deliveries while all is well: a few posts a second carry any load, and a
    # post costs as much as some twenty records.
    gather: float = 0.2


class Shelf(Protocol):
    """Where the courier gets records and hands in receipts."""

    async def next(self, sink: str) -> Batch | None: ...

    async def acknowledge(self, sink: str, batch: Batch) -> None: ...

    async def set_aside(self, sink: str, lines: Sequence[bytes], reason: str) -> None: ...


@dataclass(slots=True)
class CourierStats:
    """For metrics: records delivered and refused for good, and tries that failed."""

    delivered: int = 0
    refused: int = 0
    failures: int = 0


class Courier:
    def __init__(self, sink: Sink, shelf: Shelf, random: Callable[[], float], pauses: Pauses) -> None:
        self.sink = sink
        self.stats = CourierStats()
        self._shelf = shelf
        self._random = random
        self._pauses = pauses
        self._news = asyncio.Event()
        self._closing = asyncio.Event()

    def notify(self) -> None:
        """There is something new to carry."""
        self._news.set()

    def hurry(self) -> None:
        """Try everything once more without a pause, then end."""
        self._closing.set()
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            batch = await self._shelf.next(self.sink.name)
            if batch is not None:
                if not await self._carry(batch):
                    return
                await self._shelf.acknowledge(self.sink.name, batch)
                if len(batch.lines) < MAX_RECORDS:
                    await self._pause(self._pauses.gather)
            elif self._closing.is_set():
                return
            else:
                await self._news.wait()

    async def _carry(self, batch: Batch) -> bool:
        """Deliver every line or set it aside; False when told to end before that."""
        left: Sequence[bytes] = batch.lines
        tries = refusals = 0
        while True:
            ending = self._closing.is_set()
            delivery = await self._try(left, singly=refusals >= MAX_REFUSALS)
            self.stats.delivered += len(left) - len(delivery.left)
            left = delivery.left
            refusals = refusals + 1 if delivery.refused else 0
            if refusals >= 2 * MAX_REFUSALS:
                left = await self._set_aside(delivery)
                refusals = 0
            if not left:
                return True
            if ending:
                return False
            tries += 1
            await self._pause(self._pause_after(tries, delivery.retry_after))

    async def _try(self, lines: Sequence[bytes], singly: bool) -> Delivery:
        try:
            delivery = await self.sink.deliver(lines, singly=singly)
        except Exception as exc:  # a sink's bug must not end the deliveries to it
            log.exception("usage sink raised", extra={"sink": self.sink.name})
            delivery = Delivery(left=lines, reason=type(exc).__name__)
        if delivery.left:
            self.stats.failures += 1
            log.warning(
                "usage not delivered",
                extra={"sink": self.sink.name, "records": len(delivery.left), "reason": delivery.reason},
            )
        return delivery

    async def _set_aside(self, delivery: Delivery) -> Sequence[bytes]:
        refused = delivery.refused
        log.error(
            "usage refused, set aside",
            extra={"sink": self.sink.name, "records": len(refused), "reason": delivery.reason},
        )
        self.stats.refused += len(refused)
        await self._shelf.set_aside(self.sink.name, refused, delivery.reason)
        return [line for line in delivery.left if line not in refused]

    def _pause_after(self, tries: int, retry_after: float | None) -> float:
        grown = min(self._pauses.first * 2.0 ** min(tries - 1, 16), self._pauses.longest)
        # Half of it is chance: many proxies must not return to their receiver in one moment.
        return max(grown * (0.5 + self._random() / 2), min(retry_after or 0.0, MAX_RETRY_AFTER))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
