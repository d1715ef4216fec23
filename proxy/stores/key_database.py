"""The built-in key database, as the event loop may use it."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from proxy.access import Credential, Quota
from proxy.stores.key_book import Audited, KeyBook, NewerDatabase
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.record import BadRecord
from proxy.stores.worker import Worker, WorkerBusy

Result = TypeVar("Result")


class KeyDatabase:
    """Two threads with the file open, so that no lookup waits for a change.

    Whoever keeps answers in mind is told when keys have changed.
    """

    def __init__(self, path: Path, audited: Audited) -> None:
        self.path = path
        self._reader = _Thread(path, audited, "keys-read")
        self._writer = _Thread(path, audited, "keys-write")
        self._listeners: list[Callable[[], None]] = []

    async def read(self, call: Callable[[KeyBook], Result]) -> Result:
        """What the call returns; StoreUnavailable if the file cannot be used."""
        return await self._reader.run(call)

    async def write(self, call: Callable[[KeyBook], Result]) -> Result:
        """As `read`, for a call that writes."""
        return await self._writer.run(call)

    async def change(self, call: Callable[[KeyBook], Result]) -> Result:
        """As `write`, for a call that changes what a key may do."""
        try:
            return await self._writer.run(call)
        finally:
            for listener in self._listeners:
                listener()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls the listener after each change made through this object; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()


class _Thread:
    """A thread and its connection, which is opened when it is first needed."""

    def __init__(self, path: Path, audited: Audited, name: str) -> None:
        self._path = path
        self._audited = audited
        self._worker = Worker(name)
        self._book: KeyBook | None = None

    async def run(self, call: Callable[[KeyBook], Result]) -> Result:
        try:
            return await self._worker.run(lambda: call(self._opened()))
        except (sqlite3.Error, OSError, NewerDatabase, WorkerBusy) as error:
            reason = getattr(error, "sqlite_errorname", type(error).__name__)
            raise StoreUnavailable(str(self._path), reason) from error

    async def close(self) -> None:
        if self._book is not None:
            await self._worker.run(self._book.close)
            self._book = None
        await self._worker.close()

    def _opened(self) -> KeyBook:
        if self._book is None:
            self._book = KeyBook.open(self._path, self._audited)
        return self._book


class BuiltinKeys:
    """The database as a source of keys; the file stays open when the source is closed."""

    def __init__(self, name: str, database: KeyDatabase) -> None:
        self.name = name
        self._database = database
        self._stop_listening: Callable[[], None] = lambda: None

    def on_change(self, listener: Callable[[], None]) -> None:
        self._stop_listening = self._database.on_change(listener)

    async def find(self, digest: bytes, key: str) -> Credential | None:
        try:
            return await self._database.read(lambda book: book.find(digest, self.name))
        except BadRecord as error:
            raise LookupFailed(self.name, str(error)) from None

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        return await self._database.write(lambda book: book.debit(credential.handle, amount, now))

    async def close(self) -> None:
        """The database itself belongs to somebody else."""
        self._stop_listening()
