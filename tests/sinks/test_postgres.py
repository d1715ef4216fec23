"""The database sink against a real PostgreSQL, where one is installed."""

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
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


def line(number: int) -> bytes:
    return UsageRecord(
        id=f"r-{number}", request_id="req", time=1_767_323_045.25, model="m", path="/v1/x", method="POST",
        backend="b", pool="p", status=200, outcome="complete", duration=0.5, usage=Usage(1, 2, 2**35),
    ).to_json()  # fmt: skip


async def test_two_workers_fill_a_table_that_neither_had_and_repeats_count_once(server):
    sinks = [DatabaseTable("db", url=server), DatabaseTable("db", url=server)]
    left = [line(number) for number in range(30)]
    while left:
        deliveries = await asyncio.gather(sinks[0].deliver(left[:20]), sinks[1].deliver(left[10:]))
        left = [line for line in left if any(line in delivery.left for delivery in deliveries)]
    assert not (await sinks[0].deliver([line(1)])).left
    for sink in sinks:
        await sink.close()
    engine = create_async_engine(server)
    async with engine.connect() as connection:
        query = "SELECT count(*), min(timestamp)::text, max(total_tokens) FROM usage_records"
        (found,) = await connection.execute(text(query))
    await engine.dispose()

    assert tuple(found) == (30, "2026-01-02 03:04:05.25", 2**35)
