"""Backends from the rows of a table; needs the extra `llmproxy[sql]`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Label, column, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.upstream.discovery.base import MAX_FOUND, Found, SourceFailed, read_entries

# What a row's status may say for it to count.
ENABLED = ("enabled", "active", "1", "true", "True")

_FIELDS = ("name", "url", "weight", "status")


class DatabaseSource:
    """Selects the enabled rows, with an engine of its own.

    `fields` says which columns hold what; an empty name says that there is no such column.
    """

    def __init__(
        self, engine: AsyncEngine, *, table_name: str, fields: Mapping[str, str], within: float
    ) -> None:
        self._engine = engine
        self._fields = {name: fields.get(name, name) for name in _FIELDS if fields.get(name, name)}
        columns: list[Label[Any]] = [column(self._fields[name]).label(name) for name in self._fields]
        self._query = select(*columns).select_from(table(table_name)).limit(MAX_FOUND + 1)
        self._within = within

    async def find(self) -> Sequence[Found]:
        try:
            async with asyncio.timeout(self._within), self._engine.connect() as connection:
                rows = (await connection.execute(self._query)).mappings().all()
        except (SQLAlchemyError, OSError) as error:
            # The driver's text would hold the statement, and some hold the address with its password.
            raise SourceFailed(type(error).__name__) from error
        entries = [_entry({str(name): value for name, value in row.items()}) for row in rows]
        return read_entries([entry for entry in entries if entry is not None])

    async def close(self) -> None:
        await self._engine.dispose()


def _entry(row: dict[str, object]) -> dict[str, object] | None:
    """A row as an entry of a list, None if it is switched off; what is NULL is left to its default."""
    if str(row.pop("status", ENABLED[0])) not in ENABLED:
        return None
    return {name: value for name, value in row.items() if value is not None}
