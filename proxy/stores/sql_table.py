"""A table as the database describes it, and how its columns hold what a key carries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Float,
    Integer,
    MetaData,
    Numeric,
    Row,
    String,
    Table,
)
from sqlalchemy.exc import NoSuchTableError

from proxy.stores.times import rfc3339

_SINCE = "last_reset_at"


class UnfitTable(Exception):
    """The table is missing, or a column that was configured."""


@dataclass(frozen=True, slots=True)
class ReflectedTable:
    """The columns that are read, the key's among them."""

    table: Table
    key: Column[Any]
    columns: Sequence[Column[Any]]
    notes: Sequence[str] = ()

    def column(self, name: str) -> Column[Any] | None:
        return next((column for column in self.columns if column.name == name), None)

    def record(self, row: Row[Any]) -> Mapping[str, Any]:
        """What a row says; without a column for its start no period can be counted."""
        record = {column.name: row._mapping[column] for column in self.columns if column is not self.key}
        if self.column(_SINCE) is None:
            record["quota_reset_period"] = None
        return record

    def since(self, moment: float | None) -> Mapping[Column[Any], Any]:
        """The start of a quota's period in the column's own type."""
        column = self.column(_SINCE)
        if column is None or moment is None:
            return {}
        at = datetime.fromtimestamp(moment, UTC)
        match column.type:
            case DateTime() as kind:
                return {column: at if kind.timezone else at.replace(tzinfo=None)}
            case Date():
                return {column: at.date()}
            case Integer() | Numeric() | Float():
                return {column: int(moment)}
        return {column: rfc3339(moment)}

    def identity(self, row: Row[Any]) -> list[ColumnElement[bool]]:
        """What picks this row and no other: its primary key, or else the key itself."""
        primary = [column for column in self.columns if column.primary_key] or [self.key]
        return [column == row._mapping[column] for column in primary]


def reflected(connection: Connection, name: str, key_column: str, fields: Sequence[str]) -> ReflectedTable:
    """Reads the table's description, or raises UnfitTable."""
    schema, _, bare_name = name.rpartition(".")
    try:
        table = Table(bare_name, MetaData(), autoload_with=connection, schema=schema or None)
    except NoSuchTableError:
        raise UnfitTable(f"there is no table {name}") from None
    wanted = {key_column, *(fields or table.columns.keys())}
    missing = sorted(wanted - set(table.columns.keys()))
    if missing:
        raise UnfitTable(f"table {name} has no column {missing[0]}")
    columns = [column for column in table.columns if column.name in wanted or column.primary_key]
    if connection.dialect.name == "sqlite":
        for column in columns:
            _as_text(column)
    return ReflectedTable(table, table.columns[key_column], columns, _notes(columns))


def _as_text(column: Column[Any]) -> None:
    """SQLite keeps times as text in anybody's spelling, and SQLAlchemy reads only its own."""
    if isinstance(column.type, DateTime | Date):
        column.type = String()


def _notes(columns: Sequence[Column[Any]]) -> list[str]:
    names = {column.name for column in columns}
    if "total_quota" in names and "used_quota" not in names:
        return ["there is total_quota and no used_quota: nothing is counted"]
    if "quota_reset_period" in names and _SINCE not in names:
        return [f"there is quota_reset_period and no {_SINCE}: no quota is ever reset"]
    return []
