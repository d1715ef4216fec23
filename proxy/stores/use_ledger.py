"""What keys of files and of the configuration have used of their quotas.

Nobody writes to those files, so it is counted here, and kept in the built-in
database where there is one. A `used_quota` that is changed in the file counts
from then on.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import orjson

from proxy.access import Credential, Quota
from proxy.clock import Clock
from proxy.stores.key_database import KeyDatabase
from proxy.stores.key_store import StoreUnavailable
from proxy.stores.key_table import KeyTable

log = logging.getLogger(__name__)

# Seconds until a database that could not be written is tried again.
RETRY_PAUSE = 5.0


@dataclass(slots=True)
class _Use:
    """`seed` is what the file said when counting began."""

    seed: str
    used: int
    last_reset_at: float | None


class UseLedger:
    """Outlives reloads; belongs to whoever closes it. Counts for this process alone."""

    def __init__(self, wall: Clock, database: Callable[[], KeyDatabase] | None = None) -> None:
        self._wall = wall
        self._find_database = database
        self._database: KeyDatabase | None = None
        self._uses: dict[str, _Use] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Go on where the last process ended; where that cannot be read, begin anew and say so."""
        if self._database is not None or self._find_database is None:
            return
        database, self._find_database = self._find_database(), None
        try:
            rows = await database.read(lambda book: book.file_uses())
        except StoreUnavailable as failure:
            log.error("quotas of key files count from their files", extra={"reason": failure.reason})
            return
        self._database = database
        self._uses = {name: _Use(seed, used, since) for name, seed, used, since in rows}

    def current(self, credential: Credential) -> Credential:
        """The credential with what it has used until now."""
        quota = credential.quota
        if quota is None:
            return credential
        use = self._use(credential, quota)
        return replace(credential, quota=replace(quota, used=use.used, last_reset_at=use.last_reset_at))

    def debit(self, credential: Credential, amount: int) -> None:
        """Count what was used by somebody whom `current` has named."""
        use = self._uses.get(_name(credential))
        if use is None or credential.quota is None:
            return
        quota = replace(credential.quota, used=use.used, last_reset_at=use.last_reset_at)
        debited = quota.debited(amount, self._wall())
        use.used, use.last_reset_at = debited.used, debited.last_reset_at
        if self._database is not None:
            self._changed.add(_name(credential))
            self._wake.set()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._keep_all())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._changed:
            await self._keep()

    def _use(self, credential: Credential, quota: Quota) -> _Use:
        """What is counted for a key; begins with the file's figure, in the period of now."""
        name, seed = _name(credential), _seed(quota)
        use = self._uses.get(name)
        if use is None or use.seed != seed:
            since = quota.last_reset_at
            if since is None and quota.used:
                since = self._wall()
            use = self._uses[name] = _Use(seed, quota.used, since)
        return use

    async def _keep_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._keep():
                await asyncio.sleep(RETRY_PAUSE)
                self._wake.set()

    async def _keep(self) -> bool:
        """Write what has changed; whether that worked."""
        if self._database is None:
            return True
        names, self._changed = self._changed, set()
        rows = [(name, use.seed, use.used, use.last_reset_at) for name in names if (use := self._uses[name])]
        try:
            await self._database.write(lambda book: book.keep_file_uses(rows))
        except StoreUnavailable as failure:
            self._changed |= names
            log.error("use of quotas cannot be kept", extra={"keys": len(names), "reason": failure.reason})
            return False
        return True


class TableSource:
    """A table of keys as a source of the pipeline; it never has to be awaited."""

    def __init__(self, table: KeyTable, ledger: UseLedger) -> None:
        self.name = table.name
        self._table = table
        self._ledger = ledger

    def find_nowait(self, digest: bytes) -> Credential | None:
        found = self._table.find(digest)
        return found if found is None or found.quota is None else self._ledger.current(found)

    async def find(self, digest: bytes, key: bytes) -> Credential | None:
        return self.find_nowait(digest)

    def debit(self, credential: Credential, amount: int) -> None:
        self._ledger.debit(credential, amount)

    async def close(self) -> None:
        """The ledger outlives the table."""


def _name(credential: Credential) -> str:
    return f"{credential.source}:{credential.key_id}"


def _seed(quota: Quota) -> str:
    return orjson.dumps([quota.used, quota.last_reset_at]).decode()
