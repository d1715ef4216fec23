"""What a slow store said, remembered for a while.

A key is asked for once however many requests carry it, and answers are kept
within bounds: those who are known apart from those who are not, so that a flood
of made-up keys drives nobody out. While the store is down, whoever is still
remembered may be let in for a grace; nobody is called unknown for it.
"""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

from proxy.access import Credential, Quota
from proxy.clock import Clock
from proxy.stores.debits import Debits
from proxy.stores.key_store import KeyStore, LookupFailed, StoreUnavailable

log = logging.getLogger(__name__)

# A key with a quota is asked for again after this time, because other processes spend
# from the same quota: what they use counts here a second later.
QUOTA_TTL = 1.0
# Seconds for which a store that did not answer is left alone.
DOWN_PAUSE = 1.0
# Keys asked for at the same time. A store that takes 5 ms serves 200,000 of them a
# second; more than a thousand are a flood or an outage.
MAX_FLIGHTS = 1024
# Longer keys are nobody's, and no store is bothered with them.
MAX_KEY_BYTES = 1024


Kept = TypeVar("Kept")


class Ask(Enum):
    """The answer of a store that would have to be waited for."""

    ASK = 0


ASK = Ask.ASK


@dataclass(frozen=True, slots=True)
class Memory:
    """How long what is remembered: times in seconds, 0 for not at all."""

    ttl: float = 30.0
    negative_ttl: float = 5.0
    max_entries: int = 10_000
    grace: float = 0.0


@dataclass(slots=True)
class _Entry:
    credential: Credential
    fresh_until: float
    kept_until: float


class CachedStore:
    """A store behind a memory; one lookup per key at a time."""

    def __init__(
        self, store: KeyStore, memory: Memory, *, timeout: float, monotonic: Clock, wall: Clock
    ) -> None:
        self.name = store.name
        self._store = store
        self._memory = memory
        self._timeout = timeout
        self._monotonic = monotonic
        self._wall = wall
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._flights: dict[bytes, asyncio.Future[Credential | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._debits = Debits(store.debit, self._settled, wall=wall, timeout=timeout)
        self._down_until = 0.0
        self._changes = 0
        self.is_up = True
        self.outages = 0
        self.lookups = 0

    @property
    def lost_debits(self) -> int:
        return self._debits.lost

    @property
    def retried_debits(self) -> int:
        return self._debits.retries

    def adopt(self, previous: "CachedStore") -> None:
        """Go on with what another one remembers of the same store."""
        for digest, entry in previous._known.items():
            self._known[digest] = replace(entry)
        self._unknown.update(previous._unknown)
        self._down_until, self.is_up = previous._down_until, previous.is_up
        self.outages, self.lookups = previous.outages, previous.lookups

    def find_nowait(self, digest: bytes) -> Credential | Ask | None:
        """What is remembered of a key, or ASK."""
        now = self._monotonic()
        entry = self._known.get(digest)
        if entry is not None and now < entry.fresh_until:
            return entry.credential
        if now < self._unknown.get(digest, 0.0):
            return None
        return ASK

    async def find(self, digest: bytes, key: bytes) -> Credential | None:
        """As `find_nowait`, asking the store where that is needed."""
        found = self.find_nowait(digest)
        if found is not ASK:
            return found
        text = _text(key)
        if text is None:
            return None
        if not self.is_up and (entry := self._kept(digest)) is not None:
            if not self._flights:  # to find out whether the store is back; nobody waits for that
                self._take_off(digest, text)
            return entry.credential
        flight = self._flights.get(digest) or self._take_off(digest, text)
        return await asyncio.shield(flight)

    def debit(self, credential: Credential, amount: int) -> None:
        """Count what was used: here at once, in the store soon."""
        entry = self._known.get(credential.digest)
        if entry is not None and entry.credential.quota is not None:
            quota = entry.credential.quota.debited(amount, self._wall())
            entry.credential = replace(entry.credential, quota=quota)
        self._debits.add(credential, amount)

    def forget(self) -> None:
        """Ask anew for every key: an administrator has changed some."""
        self._changes += 1
        self._unknown.clear()
        self._known.clear()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for digest in list(self._flights):  # of tasks that never began
            self._land(digest, StoreUnavailable(self.name, "closing"))
        await self._debits.close()
        await self._store.close()

    # -- asking ------------------------------------------------------------

    def _take_off(self, digest: bytes, key: str) -> "asyncio.Future[Credential | None]":
        if len(self._flights) >= MAX_FLIGHTS:
            raise StoreUnavailable(self.name, "too many lookups at once")
        loop = asyncio.get_running_loop()
        flight = self._flights[digest] = loop.create_future()
        task = loop.create_task(self._fly(digest, key, flight))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, digest: bytes, key: str, flight: "asyncio.Future[Credential | None]") -> None:
        failure = StoreUnavailable(self.name, "closing")
        try:
            flight.set_result(await self._ask(digest, key))
        except StoreUnavailable as error:
            failure = error
        finally:
            self._land(digest, failure)

    def _land(self, digest: bytes, failure: StoreUnavailable) -> None:
        flight = self._flights.pop(digest)
        if not flight.done():
            flight.set_exception(failure)
            flight.exception()  # those who asked may all have left

    async def _ask(self, digest: bytes, key: str) -> Credential | None:
        if self._monotonic() < self._down_until:
            return self._remembered(digest, StoreUnavailable(self.name, "down"))
        self.lookups += 1
        changes = self._changes
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._store.find(digest, key)
        except LookupFailed as failure:
            log.error("a key could not be looked up", extra={"source": self.name, "reason": failure.reason})
            return self._remembered(digest, failure)
        except (StoreUnavailable, TimeoutError) as error:
            reason = error.reason if isinstance(error, StoreUnavailable) else "time-out"
            self._mark_down(reason)
            return self._remembered(digest, StoreUnavailable(self.name, reason))
        except Exception as error:
            # Another package's code: whatever it raises, nobody is unknown for it. Its text may hold a key.
            log.error("key source failed", extra={"source": self.name, "error": type(error).__name__})
            return self._remembered(digest, StoreUnavailable(self.name, type(error).__name__))
        self._mark_up()
        if changes != self._changes:  # read before the change, perhaps
            return await self._ask(digest, key)
        return self._remember(digest, found)

    def _mark_down(self, reason: str) -> None:
        self._down_until = self._monotonic() + DOWN_PAUSE
        if self.is_up:
            self.is_up = False
            self.outages += 1
            log.error("key source is down", extra={"source": self.name, "reason": reason})

    def _mark_up(self) -> None:
        if not self.is_up:
            self.is_up = True
            log.warning("key source is back", extra={"source": self.name})

    # -- remembering ---------------------------------------------------------

    def _remember(self, digest: bytes, found: Credential | None) -> Credential | None:
        now = self._monotonic()
        if found is None:
            self._known.pop(digest, None)
            self._unknown[digest] = now + self._memory.negative_ttl
            _bound(self._unknown, digest, self._memory.max_entries)
            return None
        self._unknown.pop(digest, None)
        found = self._with_waiting_debits(found)
        ttl = self._memory.ttl if found.quota is None else min(self._memory.ttl, QUOTA_TTL)
        kept_until = now + self._memory.ttl + self._memory.grace
        self._known[digest] = _Entry(found, now + ttl, kept_until)
        _bound(self._known, digest, self._memory.max_entries)
        return found

    def _remembered(self, digest: bytes, failure: StoreUnavailable) -> Credential:
        """Somebody who was known, for as long as the grace lasts."""
        entry = self._kept(digest)
        if entry is None:
            raise failure
        entry.fresh_until = min(self._monotonic() + DOWN_PAUSE, entry.kept_until)
        return entry.credential

    def _kept(self, digest: bytes) -> _Entry | None:
        entry = self._known.get(digest)
        is_kept = entry is not None and self._memory.grace and self._monotonic() < entry.kept_until
        return entry if is_kept else None

    def _with_waiting_debits(self, found: Credential) -> Credential:
        """The store's figure, and what it has not been told yet."""
        waiting = self._debits.waiting(found.digest)
        if found.quota is None or not waiting:
            return found
        return replace(found, quota=found.quota.debited(waiting, self._wall()))

    def _settled(self, credential: Credential, quota: Quota) -> None:
        entry = self._known.get(credential.digest)
        if entry is not None:
            entry.credential = self._with_waiting_debits(replace(entry.credential, quota=quota))


def _text(key: bytes) -> str | None:
    """The key as text, if it is one that a store could hold."""
    if len(key) > MAX_KEY_BYTES or not key.isascii():
        return None
    text = key.decode("ascii")
    return text if text.isprintable() and " " not in text else None


def _bound(entries: "OrderedDict[bytes, Kept]", newest: bytes, maximum: int) -> None:
    entries.move_to_end(newest)
    if len(entries) > maximum:
        entries.popitem(last=False)
