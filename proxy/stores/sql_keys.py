"""Keys in a table of PostgreSQL, MySQL or SQLite that somebody else keeps.

What columns there are and of which types is read from the database itself, so
the table may be any that has a column for the key or its digest.
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import Column, ColumnElement, LargeBinary, Row, Select, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from proxy.access import Credential, Quota
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.record import BadRecord, credential_of
from proxy.stores.sql_table import ReflectedTable, UnfitTable, reflected

log = logging.getLogger(__name__)

KeyFormat = Literal["plain", "sha256"]
Result = TypeVar("Result")

# Rows that a lookup reads: databases may compare without regard to case, and only one of them is exact.
MAX_ROWS = 16


class SqlKeys:
    """Reads rows, and adds what was used to their `used_quota`."""

    def __init__(
        self,
        name: str,
        engine: AsyncEngine,
        *,
        table: str = "api_keys",
        key_column: str = "api_key",
        key_format: KeyFormat = "plain",
        fields: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._engine = engine
        self._wanted = (table, key_column, tuple(fields))
        self._key_format = key_format
        self._table: ReflectedTable | None = None
        self._reflecting = asyncio.Lock()

    async def find(self, digest: bytes, key: str) -> Credential | None:
        handle = key if self._key_format == "plain" else digest.hex()
        return await self._guarded(self._find(digest, handle))

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        """In one transaction, which holds the row from before it is read."""
        return await self._guarded(self._debit(credential, amount, now))

    async def close(self) -> None:
        await self._engine.dispose()

    async def _guarded(self, call: Awaitable[Result]) -> Result:
        try:
            return await call
        except BadRecord as error:
            raise LookupFailed(self.name, str(error)) from None
        except UnfitTable as error:
            raise StoreUnavailable(self.name, str(error)) from None
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(self.name, type(error).__name__) from None

    async def _find(self, digest: bytes, handle: str) -> Credential | None:
        async with self._engine.connect() as connection:
            table = await self._reflected(connection)
            row = await self._row(connection, table, select(*table.columns), handle)
        if row is None:
            return None
        return credential_of(table.record(row), digest, source=self.name, handle=handle)

    async def _debit(self, credential: Credential, amount: int, now: float) -> Quota | None:
        async with self._engine.begin() as connection:
            table = await self._reflected(connection)
            used = table.column("used_quota")
            if used is None:
                return None
            if connection.dialect.name == "sqlite":  # has no FOR UPDATE; writing takes its lock
                key = _is_any_of(table.key, self._spellings(table.key, credential.handle))
                await connection.execute(update(table.table).where(key).values({used: used}))
            rows = select(*table.columns).with_for_update()
            row = await self._row(connection, table, rows, credential.handle)
            current = credential_of(table.record(row), credential.digest, source=self.name) if row else None
            if row is None or current is None or current.quota is None:
                return None
            quota = current.quota.debited(amount, now)
            values = {used: quota.used, **table.since(quota.last_reset_at)}
            await connection.execute(update(table.table).where(*table.identity(row)).values(values))
            return quota

    async def _row(
        self, connection: AsyncConnection, table: ReflectedTable, query: Select[Any], handle: str
    ) -> Row[Any] | None:
        """The row whose key is exactly this one, whatever the database takes for equal."""
        spellings = self._spellings(table.key, handle)
        rows = await connection.execute(query.where(_is_any_of(table.key, spellings)).limit(MAX_ROWS))
        return next((row for row in rows if _bare(row._mapping[table.key]) in spellings), None)

    def _spellings(self, column: Column[Any], handle: str) -> list[Any]:
        """How the column may hold it: hex digits come in both cases, digests also as bytes."""
        if self._key_format == "plain":
            return [handle.encode() if isinstance(column.type, LargeBinary) else handle]
        if isinstance(column.type, LargeBinary):
            return [bytes.fromhex(handle)]
        return [handle, handle.upper()]

    async def _reflected(self, connection: AsyncConnection) -> ReflectedTable:
        """The table as it is in the database, read once."""
        async with self._reflecting:
            if self._table is None:
                table = await connection.run_sync(reflected, *self._wanted)
                for sentence in table.notes:
                    log.warning("a key table lacks a column", extra={"source": self.name, "note": sentence})
                self._table = table
            return self._table


def _is_any_of(column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    return column.in_(values)


def _bare(value: Any) -> Any:
    """Columns of a fixed length come filled up with spaces, and no key ends with one."""
    if isinstance(value, memoryview):
        return bytes(value)
    return value.rstrip(" ") if isinstance(value, str) else value
