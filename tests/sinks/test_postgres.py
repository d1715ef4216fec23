"""The database sink against a real PostgreSQL, where one is installed."""

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from proxy.sinks.database import DatabaseTable
from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage

INITDB = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server of our own; PostgreSQL does not run as root."""
    if not INITDB:
        pytest.skip("no PostgreSQL here")
    with tempfile.TemporaryDirectory() as folder:
        user = "nobody" if os.getuid() == 0 else None
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(program: str, *arguments: str) -> None:
            command = [INITDB[-1].with_name(program), "-D", f"{folder}/data", *arguments]
            environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
            subprocess.run(command, user=user, env=environment, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "-U", "u", "-A", "trust", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", options)
        try:
            yield f"postgresql+asyncpg://u@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-m", "immediate")


def line(number: int, *, model: str = "m", tool_calls: int = 0) -> bytes:
    return UsageRecord(
        id=f"r-{number}", request_id="req", timestamp=datetime(2026, 1, 2, 3, 4, 5, 250_000, UTC),
        model=model, path="/v1/x", method="POST", backend="b", pool="p", status_code=200, outcome="complete",
        latency_ms=500, usage=Usage(1, 2, 2**35), tool_calls=tool_calls,
    ).to_json()  # fmt: skip


async def ask(server: str, query: str) -> list[tuple]:
    engine = create_async_engine(server)
    async with engine.begin() as connection:
        result = await connection.execute(text(query))
        found = [tuple(row) for row in result] if result.returns_rows else []
    await engine.dispose()
    return found


async def test_two_workers_fill_a_table_that_neither_had_and_repeats_count_once(server):
    sinks = [DatabaseTable("db", url=server), DatabaseTable("db", url=server)]
    left = [line(number) for number in range(30)]
    while left:
        deliveries = await asyncio.gather(sinks[0].deliver(left[:20]), sinks[1].deliver(left[10:]))
        left = [line for line in left if any(line in delivery.left for delivery in deliveries)]
    assert not (await sinks[0].deliver([line(1)])).left
    for sink in sinks:
        await sink.close()

    query = "SELECT count(*), min(timestamp)::text, max(total_tokens) FROM usage_records"
    assert await ask(server, query) == [(30, "2026-01-02 03:04:05.25", 2**35)]


@asynccontextmanager
async def table(server: str, name: str) -> AsyncIterator[DatabaseTable]:
    sink = DatabaseTable("db", url=server, table=name)
    try:
        yield sink
    finally:
        await sink.close()


async def test_a_character_that_no_text_there_can_hold_stops_no_record(server):
    async with table(server, "with_nul") as sink:
        delivery = await sink.deliver([line(1, model="a\0b"), line(2)])

    assert not delivery.left
    assert await ask(server, "SELECT model FROM with_nul ORDER BY id") == [("a\ufffdb",), ("m",)]


async def test_a_row_that_is_refused_is_found_and_the_others_pass(server):
    poison = line(2, tool_calls=2**40)
    async with table(server, "with_poison") as sink:
        together = await sink.deliver([line(1), poison, line(3)])
        singly = await sink.deliver([line(1), poison, line(3)], singly=True)

    assert (len(together.left), len(together.refused)) == (3, 3)
    assert (singly.left, singly.refused) == ([poison], [poison])
    assert await ask(server, "SELECT id FROM with_poison ORDER BY id") == [("r-1",), ("r-3",)]


async def test_a_table_that_is_not_there_any_more_is_made_again(server):
    async with table(server, "lost") as sink:
        assert not (await sink.deliver([line(1)])).left
        await ask(server, "DROP TABLE lost")
        assert (await sink.deliver([line(2)])).left == [line(2)]
        assert not (await sink.deliver([line(2)])).left

    assert await ask(server, "SELECT id FROM lost") == [("r-2",)]


async def test_trouble_of_the_database_itself_refuses_no_record(server):
    await ask(server, "CREATE ROLE reader LOGIN")
    await ask(server, "ALTER ROLE reader SET default_transaction_read_only = on")
    await ask(server, "CREATE TABLE closed (id text PRIMARY KEY)")
    async with table(server.replace("//u@", "//reader@"), "closed") as sink:
        delivery = await sink.deliver([line(1), line(2)], singly=True)

    assert (delivery.left, list(delivery.refused)) == ([line(1), line(2)], [])
    assert delivery.reason
