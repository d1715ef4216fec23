"""Usage records in tables, and in the log."""

import asyncio
import json
import logging
import sqlite3
import stat
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

import pytest
from msgspec import UNSET
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateTable

from proxy.logs import JsonLines, TextLines
from proxy.sinks.database import DatabaseTable, insert_after_asking, insert_or_skip, make_table
from proxy.sinks.kinds import KINDS
from proxy.sinks.log import LogLines
from proxy.sinks.rows import MAX_PATH, row
from proxy.sinks.sqlite import CLEANING_SECONDS, DAY, SqliteTable
from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage


def record(number: int, *, time: float = 1_767_323_045.5, path: str = "/v1/chat/completions") -> bytes:
    return UsageRecord(
        id=f"r-{number}", request_id=f"req-{number}", timestamp=datetime.fromtimestamp(time, UTC),
        model="qwen", method="POST", path=path, backend="b", pool="default", status_code=200,
        outcome="complete", stream=True, latency_ms=500, key_id="k1",
        usage=Usage(1, 2, 3) if number else UNSET, estimated=True,
    ).to_json()  # fmt: skip


@asynccontextmanager
async def table(kind: str, path, **options):
    if kind == "builtin":
        sink = SqliteTable("table", path=path, **options)
    else:
        sink = DatabaseTable("table", url=f"sqlite+aiosqlite:///{path}", **options)
    try:
        yield sink
    finally:
        await sink.close()


def rows(path, columns: str = "id") -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT {columns} FROM usage_records ORDER BY id").fetchall()


KIND = pytest.mark.parametrize("kind", ["builtin", "database"])


@KIND
async def test_a_table_is_made_and_filled(kind, tmp_path):
    async with table(kind, tmp_path / "u.db") as sink:
        delivery = await sink.deliver([record(0), record(1)])

    assert not delivery.left
    columns = "id, user_id, key_id, path, total_tokens, is_stream, estimated"
    assert rows(tmp_path / "u.db", columns) == [
        ("r-0", None, "k1", "/v1/chat/completions", None, 1, 1),
        ("r-1", None, "k1", "/v1/chat/completions", 3, 1, 1),
    ]


@KIND
async def test_a_repeated_delivery_counts_once(kind, tmp_path):
    async with table(kind, tmp_path / "u.db") as sink:
        await sink.deliver([record(1), record(2)])
        assert not (await sink.deliver([record(2), record(3)])).left
    async with table(kind, tmp_path / "u.db") as sink:
        assert not (await sink.deliver([record(3), record(4)])).left

    assert rows(tmp_path / "u.db") == [("r-1",), ("r-2",), ("r-3",), ("r-4",)]


@KIND
async def test_what_a_client_wrote_is_cut_to_the_columns(kind, tmp_path):
    async with table(kind, tmp_path / "u.db") as sink:
        assert not (await sink.deliver([record(1, path="/v1/" + "x" * 5000)])).left

    assert rows(tmp_path / "u.db", "LENGTH(path)") == [(MAX_PATH,)]


@KIND
async def test_a_line_that_is_no_record_is_refused_not_fatal(kind, tmp_path):
    async with table(kind, tmp_path / "u.db") as sink:
        delivery = await sink.deliver([b"{}", record(1), b"no json"])

    assert (delivery.left, delivery.refused) == ([b"{}", b"no json"], [b"{}", b"no json"])
    assert rows(tmp_path / "u.db") == [("r-1",)]


@KIND
async def test_a_database_that_cannot_be_had_is_a_failure_until_it_can(kind, tmp_path):
    place = tmp_path / "place"
    if kind == "builtin":
        place.write_text("in the way")
    async with table(kind, place / "u.db") as sink:
        before = await sink.deliver([record(1)])
        place.unlink(missing_ok=True)
        place.mkdir()
        after = await sink.deliver([record(1)])

    assert (before.left, list(before.refused), bool(before.reason)) == ([record(1)], [], True)
    assert not after.left
    assert rows(place / "u.db") == [("r-1",)]


@KIND
async def test_several_workers_fill_one_table(kind, tmp_path):
    async with table(kind, tmp_path / "u.db") as first, table(kind, tmp_path / "u.db") as second:
        left = [record(number) for number in range(40)]
        while left:
            deliveries = await asyncio.gather(first.deliver(left[:25]), second.deliver(left[15:]))
            left = [line for line in left if any(line in delivery.left for delivery in deliveries)]

    assert len(rows(tmp_path / "u.db")) == 40


async def test_the_builtin_table_is_for_its_owner_alone(tmp_path):
    async with table("builtin", tmp_path / "new" / "u.db") as sink:
        await sink.deliver([record(1)])

        assert stat.S_IMODE((tmp_path / "new" / "u.db").stat().st_mode) == 0o600


async def test_the_builtin_tables_times_sort_and_are_known_to_sqlite(tmp_path):
    async with table("builtin", tmp_path / "u.db") as sink:
        await sink.deliver([record(1, time=1_767_323_045.0), record(2, time=1_767_323_045.25)])

    assert rows(tmp_path / "u.db", "timestamp, strftime('%s', timestamp)") == [
        ("2026-01-02T03:04:05.000000Z", "1767323045"),
        ("2026-01-02T03:04:05.250000Z", "1767323045"),
    ]


async def test_old_rows_are_deleted_after_the_retention(tmp_path):
    now = [1_767_323_045.5]
    async with table("builtin", tmp_path / "u.db", retention_days=30, clock=lambda: now[0]) as sink:
        await sink.deliver([record(1), record(2, time=now[0] + DAY)])
        now[0] += 30 * DAY + CLEANING_SECONDS
        await sink.deliver([record(3, time=now[0])])

    assert rows(tmp_path / "u.db") == [("r-2",), ("r-3",)]


async def test_without_a_retention_everything_is_kept(tmp_path):
    async with table("builtin", tmp_path / "u.db", clock=lambda: 1e10) as sink:
        await sink.deliver([record(1)])

    assert rows(tmp_path / "u.db") == [("r-1",)]


async def test_a_missing_driver_and_a_dead_server_are_failures_that_name_no_password():
    for url in ("postgresql+asyncpg://u:hunter2@127.0.0.1:1/db", "nosuch+driver://u:hunter2@h/db"):
        sink = DatabaseTable("table", url=url, timeout=5.0)
        delivery = await sink.deliver([record(1)])
        await sink.close()

        assert delivery.left == [record(1)]
        assert delivery.reason and "hunter2" not in delivery.reason


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (postgresql.dialect(), "ON CONFLICT (id) DO NOTHING"),
        (mysql.dialect(), "INSERT IGNORE INTO usage_records"),
        (sqlite.dialect(), "ON CONFLICT (id) DO NOTHING"),
    ],
)
def test_every_known_database_passes_over_repeats_in_its_own_words(dialect, expected):
    statement = insert_or_skip(dialect.name, make_table("usage_records"))

    assert expected in str(statement.compile(dialect=dialect))
    assert "CREATE TABLE" in str(CreateTable(make_table("usage_records")).compile(dialect=dialect))


async def test_a_database_without_such_words_is_asked_first(tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/u.db")
    made = make_table("usage_records")
    async with engine.begin() as connection:
        await connection.run_sync(made.metadata.create_all)
        for numbers in ([1, 2], [2, 3], [3]):
            await insert_after_asking(connection, made, [row(record(number)) for number in numbers])
    await engine.dispose()

    assert rows(tmp_path / "u.db") == [("r-1",), ("r-2",), ("r-3",)]


async def test_the_log_gets_one_line_for_each_record(caplog):
    sink = LogLines("log")
    with caplog.at_level(logging.INFO):
        delivery = await sink.deliver([record(1), record(2)])
    await sink.close()

    assert not delivery.left
    assert [(line.name, line.msg, line.id) for line in caplog.records] == [
        ("proxy.usage", "usage", "r-1"), ("proxy.usage", "usage", "r-2"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 1])
async def test_a_line_of_the_log_holds_the_whole_record(caplog, number):
    with caplog.at_level(logging.INFO):
        await LogLines("log").deliver([record(number)])

    (line,) = caplog.records
    found, whole = json.loads(JsonLines().format(line)), json.loads(record(number))
    counts = whole.pop("usage", {})
    assert found == found | whole | counts
    assert set(found) == {"time", "level", "event", "logger"} | set(whole) | set(counts)
    assert f"id=r-{number} " in TextLines().format(line)


def test_every_kind_has_a_name():
    assert set(KINDS) == {"webhook", "log", "builtin", "database"}
