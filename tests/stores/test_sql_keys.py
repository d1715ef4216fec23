"""What is particular to databases: tables of any shape, and words that look alike."""

from datetime import UTC, datetime

import pytest
from kit.key_worlds import sqlite_world
from sqlalchemy import text

from proxy.access import Quota, digest
from proxy.config.schema_storage import Database
from proxy.stores.key_store import StoreUnavailable
from proxy.stores.sql_engine import sql_engine
from proxy.stores.sql_keys import SqlKeys

KEY = "sk-canary"
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()


@pytest.fixture
async def engine(tmp_path):
    engine = sql_engine(Database(driver="sqlite", path=str(tmp_path / "keys.db")))
    yield engine
    await engine.dispose()


async def run(engine, *statements):
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def find(store, key=KEY):
    return await store.find(digest(key.encode()), key)


async def test_a_table_needs_nothing_but_a_column_for_the_key(engine):
    await run(engine, "CREATE TABLE k (token TEXT)", f"INSERT INTO k VALUES ('{KEY}')")

    found = await find(SqlKeys("db", engine, table="k", key_column="token"))

    assert (found.status, found.quota) == ("active", None)


async def test_a_table_may_lie_in_a_schema(engine):
    await run(engine, "CREATE TABLE k (api_key TEXT)", f"INSERT INTO k VALUES ('{KEY}')")

    assert await find(SqlKeys("db", engine, table="main.k")) is not None


async def test_only_the_configured_columns_are_read(engine):
    await run(
        engine,
        "CREATE TABLE k (api_key TEXT, name TEXT, status TEXT, expires_at TEXT)",
        f"INSERT INTO k VALUES ('{KEY}', 'alice', 'disabled', 'nobody can read this')",
    )

    found = await find(SqlKeys("db", engine, table="k", fields=["name", "status"]))

    assert (found.name, found.status) == ("alice", "disabled")


UNFIT = [
    ({"table": "nowhere"}, "there is no table nowhere"),
    ({"table": "k", "key_column": "token"}, "table k has no column token"),
    ({"table": "k", "fields": ["name", "colour"]}, "table k has no column colour"),
]


@pytest.mark.parametrize(("options", "said"), UNFIT)
async def test_a_table_that_does_not_fit_is_said_and_knows_nobody(engine, options, said):
    await run(engine, "CREATE TABLE k (api_key TEXT, name TEXT)")

    with pytest.raises(StoreUnavailable, match=said):
        await find(SqlKeys("db", engine, **options))


async def test_a_table_that_comes_later_is_found_then(engine):
    store = SqlKeys("db", engine, table="k")
    with pytest.raises(StoreUnavailable):
        await find(store)

    await run(engine, "CREATE TABLE k (api_key TEXT)", f"INSERT INTO k VALUES ('{KEY}')")

    assert await find(store) is not None


async def test_an_error_of_the_database_shows_no_key(engine):
    await run(engine, "CREATE TABLE k (api_key TEXT)")
    store = SqlKeys("db", engine, table="k")
    await find(store)
    await run(engine, "DROP TABLE k")

    with pytest.raises(StoreUnavailable) as raised:
        await find(store)

    assert KEY not in f"{raised.value!r}{raised.value.__cause__!r}{raised.value.__context__!r}"


async def test_of_keys_that_differ_in_case_the_exact_one_is_found_and_debited(tmp_path):
    world = sqlite_world(tmp_path)
    await world.start()
    for key in ("sk-A", "sk-a", "SK-A"):
        await world.put(key, name=key, total_quota=100)
    store = world.store()

    assert [(await find(store, key)).name for key in ("sk-a", "SK-A", "sk-A")] == ["sk-a", "SK-A", "sk-A"]
    assert await find(store, "SK-a") is None
    await store.debit(await find(store, "sk-a"), 5, NOW, entry="e1")

    assert [(await find(store, key)).quota.used for key in ("sk-a", "SK-A", "sk-A")] == [5, 0, 0]
    await world.close()


async def test_without_a_column_for_the_amount_nothing_is_counted_and_that_is_said(engine, caplog):
    await run(engine, "CREATE TABLE k (api_key TEXT, total_quota INT)", f"INSERT INTO k VALUES ('{KEY}', 9)")
    store = SqlKeys("db", engine, table="k")

    assert await store.debit(await find(store), 5, NOW, entry="e1") is None
    assert "lacks a column" in caplog.text


async def test_without_a_column_for_its_start_no_period_is_counted_and_that_is_said(engine, caplog):
    await run(
        engine,
        "CREATE TABLE k (api_key TEXT, total_quota INT, used_quota INT, quota_reset_period TEXT)",
        f"INSERT INTO k VALUES ('{KEY}', 100, 90, 'daily')",
    )
    store = SqlKeys("db", engine, table="k")

    assert await store.debit(await find(store), 20, NOW, entry="e1") == Quota(100, used=110)
    assert (await find(store)).quota.used_at(NOW + 10 * 86_400) == 110
    assert "lacks a column" in caplog.text


SINCE = [
    # how the column is declared, what was in it, what a debit in March makes of it
    ("INTEGER", "1769904000", 1772323200),
    ("REAL", "1769904000.0", 1772323200.0),
    ("TEXT", "'2026-02-01T00:00:00Z'", "2026-03-01T00:00:00Z"),
    ("DATETIME", "'2026-02-01 00:00:00+00:00'", "2026-03-01T00:00:00Z"),
    ("TIMESTAMP", "NULL", "2026-03-01T00:00:00Z"),
    ("DATE", "'2026-02-01'", "2026-03-01T00:00:00Z"),
]


@pytest.mark.parametrize(("kind", "before", "after"), SINCE)
async def test_the_start_of_a_period_is_written_in_the_columns_own_type(engine, kind, before, after):
    await run(
        engine,
        f"""CREATE TABLE k (api_key TEXT, total_quota INT, used_quota INT, quota_reset_period TEXT,
                            last_reset_at {kind})""",
        f"INSERT INTO k VALUES ('{KEY}', 100, 90, 'monthly', {before})",
    )
    store = SqlKeys("db", engine, table="k")
    credential = await find(store)

    for entry in ("e1", "e2"):
        await store.debit(credential, 5, NOW, entry=entry)

    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT used_quota, last_reset_at FROM k"))).one()
    assert tuple(row) == (10, after)


async def test_digests_are_found_in_either_case(engine):
    found = digest(KEY.encode()).hex()
    await run(engine, "CREATE TABLE k (api_key TEXT)", f"INSERT INTO k VALUES ('{found.upper()}')")
    store = SqlKeys("db", engine, table="k", key_format="sha256")

    assert await find(store) is not None
    assert await find(store, found) is None


async def test_a_digest_that_leaked_is_no_key(engine):
    found = digest(KEY.encode()).hex()
    await run(engine, "CREATE TABLE k (api_key TEXT)", f"INSERT INTO k VALUES ('{found}')")

    assert await find(SqlKeys("db", engine, table="k", key_format="sha256"), found) is None


# -- engines ----------------------------------------------------------------------------

URLS = [
    (
        Database(driver="postgres", host="db", user="u", password="p@/:", database="d"),
        "postgresql+asyncpg://u:p%40%2F%3A@db/d",
    ),
    (
        Database(driver="postgres", host="/run/postgresql", database="d"),
        "postgresql+asyncpg:///d?host=%2Frun%2Fpostgresql",
    ),
    (Database(driver="mysql", host="db", port=3307, user="u", database="d"), "mysql+aiomysql://u@db:3307/d"),
    (
        Database(driver="mysql", host="/run/mysqld.sock", database="d"),
        "mysql+aiomysql:///d?unix_socket=%2Frun%2Fmysqld.sock",
    ),
    (Database(driver="sqlite", path="/var/lib/a b.db"), "sqlite+aiosqlite:////var/lib/a b.db"),
    (Database(dsn="postgres://u:p@db/d?ssl=require"), "postgresql+asyncpg://u:p@db/d?ssl=require"),
    (Database(dsn="mysql://u@db/d"), "mysql+aiomysql://u@db/d"),
    (Database(dsn="postgresql+asyncpg://db/d"), "postgresql+asyncpg://db/d"),
]


@pytest.mark.parametrize(("database", "url"), URLS, ids=[url.split(":")[0] for _, url in URLS])
async def test_an_engine_is_made_of_its_part_of_the_configuration(database, url):
    engine = sql_engine(database)

    assert engine.url.render_as_string(hide_password=False) == url
    await engine.dispose()


async def test_an_engine_has_no_more_connections_than_it_may():
    engine = sql_engine(Database(driver="postgres", max_open_conns=7, max_idle_conns=3))

    assert (engine.pool.size(), engine.pool._max_overflow) == (3, 4)
    await engine.dispose()
