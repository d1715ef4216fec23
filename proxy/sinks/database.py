"""Usage records in a table of a database that is there already, through SQLAlchemy.

The table is created where it is missing; a record that is in it already is skipped, so
that a repeated delivery counts once. A batch is one transaction: a row that the database
turns down takes it back whole, until the courier asks for the rows singly. Needs the
extra `llmproxy[sql]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxy.sinks.rows import MAX_NAME, MAX_PATH, TABLE, readable_rows
from proxy.sinks.sink import Delivery

if TYPE_CHECKING:
    from sqlalchemy import Insert, Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class DatabaseTable:
    """`url` is SQLAlchemy's, with an asyncio driver, say `postgresql+asyncpg://…`."""

    def __init__(self, name: str, *, url: str, table: str = TABLE, timeout: float = 30.0) -> None:
        self.name = name
        self._url = url
        self._table_name = table
        self._timeout = timeout
        self._engine: AsyncEngine | None = None
        self._table: Table | None = None

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        if not singly:
            return await self._deliver(lines)
        left: list[bytes] = []
        reason = ""
        for at, line in enumerate(lines):
            delivery = await self._deliver([line])
            left += delivery.left
            reason = reason or delivery.reason
            if len(delivery.refused) < len(delivery.left):  # what comes next would meet it too
                return Delivery(left=[*left, *lines[at + 1 :]], refused=left[:-1], reason=delivery.reason)
        return Delivery(left=left, refused=left, reason=reason)

    async def _deliver(self, lines: Sequence[bytes]) -> Delivery:
        from sqlalchemy.exc import SQLAlchemyError

        rows, unreadable = readable_rows(lines)
        try:
            async with asyncio.timeout(self._timeout):
                await self._insert(rows)
        except (SQLAlchemyError, OSError, ImportError) as exc:
            self._table = None  # it may not be there (any more)
            # The type only: drivers put the address, and now and then the password, into the text.
            refused = lines if _is_refusal(exc) else ()
            return Delivery(left=lines, refused=refused, reason=type(exc).__name__)
        return Delivery(left=unreadable, refused=unreadable, reason="unreadable record" if unreadable else "")

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def _insert(self, rows: list[dict[str, Any]]) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        if self._engine is None:
            self._engine = create_async_engine(
                self._url, pool_size=1, pool_pre_ping=True, hide_parameters=True
            )
        async with self._engine.begin() as connection:
            if self._table is None:
                table = make_table(self._table_name)
                await connection.run_sync(table.metadata.create_all)
                self._table = table
            if (statement := insert_or_skip(connection.dialect.name, self._table)) is None:
                await insert_after_asking(connection, self._table, rows)
            elif rows:
                await connection.execute(statement, rows)


def _is_refusal(error: Exception) -> bool:
    """Whether a value was turned down, and would be again, rather than that something does not work."""
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

    if not isinstance(error, DBAPIError):
        return False
    # Data exceptions and violated constraints by the SQL standard; asyncpg's have no class of their own.
    is_named = str(getattr(error.orig, "sqlstate", "")).startswith(("22", "23"))
    return is_named or isinstance(error, (DataError, IntegrityError))


async def insert_after_asking(connection: AsyncConnection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert those rows whose ids are not there."""
    from sqlalchemy import insert, select

    ids = [row["id"] for row in rows]
    found = set((await connection.execute(select(table.c.id).where(table.c.id.in_(ids)))).scalars())
    if new := [row for row in rows if row["id"] not in found]:
        await connection.execute(insert(table), new)


def insert_or_skip(dialect: str, table: Table) -> Insert | None:
    """An INSERT that passes over ids that are there, where the database has one."""
    from sqlalchemy.dialects import mysql, postgresql, sqlite

    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=["id"])
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=["id"])
    if dialect in ("mysql", "mariadb"):
        return mysql.insert(table).prefix_with("IGNORE")
    return None


def make_table(name: str) -> Table:
    from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, String, Table
    from sqlalchemy.dialects import mysql

    text = String(MAX_NAME)
    moment = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    counts = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return Table(
        name,
        MetaData(),
        Column("id", String(64), primary_key=True),
        Column("request_id", text, nullable=False),
        Column("timestamp", moment, nullable=False, index=True),
        Column("user_id", text, index=True),
        Column("key_id", text, index=True),
        *(Column(name, text) for name in ("key_name", "session", "model", "upstream_model", "method")),
        Column("path", String(MAX_PATH), nullable=False),
        *(Column(name, text) for name in ("pool", "backend")),
        Column("backend_url", String(MAX_PATH)),
        *(Column(name, text) for name in ("response_id", "outcome")),
        *(
            Column(name, Integer)
            for name in ("status_code", "latency_ms", "ttfb_ms", "attempts", "tool_calls")
        ),
        *(Column(name, BigInteger) for name in counts),
        *(Column(name, Boolean, nullable=False) for name in ("is_stream", "estimated", "incomplete")),
    )
