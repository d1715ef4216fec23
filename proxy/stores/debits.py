"""Usage on its way to the store that keeps a quota.

Requests don't wait for it: amounts add up per key, and one at a time goes out
as fast as the store takes them. While the store is away they wait here.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Protocol

from proxy.access import Credential, Quota
from proxy.clock import Clock
from proxy.stores.key_store import LookupFailed, StoreUnavailable

log = logging.getLogger(__name__)

# Keys whose use waits for a store that is away; at 200 bytes each this is 20 MB.
MAX_WAITING = 100_000
# Seconds before the next try while the store is away: soon after a blip, calm in an outage.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
# Seconds for what is left when the process ends.
LAST_CHANCE = 5.0


class Debit(Protocol):
    def __call__(
        self, credential: Credential, amount: int, now: float, *, entry: str
    ) -> Awaitable[Quota | None]: ...


@dataclass(slots=True)
class _Waiting:
    """What a key has used and its store doesn't know yet: `trying` is on its way as `entry`."""

    credential: Credential
    amount: int
    trying: int = 0
    entry: str = ""


class Debits:
    """Belongs to whoever closes it; `settled` hears what a store says of a quota."""

    def __init__(
        self,
        debit: Debit,
        settled: Callable[[Credential, Quota], None],
        *,
        wall: Clock,
        timeout: float,
    ) -> None:
        self._debit = debit
        self._settled = settled
        self._wall = wall
        self._timeout = timeout
        self._waiting: OrderedDict[bytes, _Waiting] = OrderedDict()  # a dict finds its first slowly
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.lost = 0
        self.retries = 0

    def add(self, credential: Credential, amount: int) -> None:
        waiting = self._waiting.get(credential.digest)
        if waiting is not None:
            waiting.amount += amount
        elif len(self._waiting) >= MAX_WAITING:
            self._lose("too many wait", credential)
        else:
            self._waiting[credential.digest] = _Waiting(credential, amount)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._wake.set()

    def waiting(self, digest: bytes) -> int:
        """What a key has used and its store doesn't know yet."""
        found = self._waiting.get(digest)
        return found.amount + found.trying if found else 0

    async def close(self) -> None:
        """Send what waits, if the store takes it in time."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            async with asyncio.timeout(LAST_CHANCE):
                while self._waiting:
                    await self._send(next(iter(self._waiting.values())), patient=False)
        except (TimeoutError, StoreUnavailable):
            self.lost += len(self._waiting)
            log.error("use of quotas is lost, their store is away", extra={"keys": len(self._waiting)})

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._send(next(iter(self._waiting.values())), patient=True)

    async def _send(self, waiting: _Waiting, *, patient: bool) -> None:
        """One key's debit, tried until the store has it; what is used meanwhile makes the next one."""
        credential, pause = waiting.credential, FIRST_PAUSE
        if not waiting.trying:
            waiting.trying, waiting.amount, waiting.entry = waiting.amount, 0, token_hex(8)
        while True:
            try:
                quota = await self._try(credential, waiting.trying, waiting.entry)
                break
            except LookupFailed as failure:
                self._lose(failure.reason, credential)
                quota = None
                break
            except StoreUnavailable:
                if not patient:
                    raise
                self.retries += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        del self._waiting[credential.digest]
        waiting.trying = 0
        if waiting.amount:
            self._waiting[credential.digest] = waiting
        if quota is not None:
            self._settled(credential, quota)

    async def _try(self, credential: Credential, amount: int, entry: str) -> Quota | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._debit(credential, amount, self._wall(), entry=entry)
        except TimeoutError as error:
            raise StoreUnavailable(credential.source, "time-out") from error

    def _lose(self, reason: str, credential: Credential) -> None:
        self.lost += 1
        log.error("a quota could not be debited", extra={"key_id": credential.key_id, "reason": reason})
