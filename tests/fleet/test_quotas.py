"""A quota that two gateways spend at the same time, wherever the key lives."""

import asyncio
import json
import subprocess
import sys

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.servers import POSTGRES, REDIS, PostgresServer, RedisServer
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, post

from proxy.access import digest

KEY = "sk-shared-0123456789"
QUOTA = 30
CLIENTS = 12
USED = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHAT = post(b"/v1/chat/completions", b'{"model":"m"}', b"Authorization: Bearer " + KEY.encode())


class InRedis:
    def __init__(self, folder):
        self._server = RedisServer().begin()
        cache = {"name": "default", "addr": f"unix:{self._server.socket}"}
        self.changes = {"storage": {"caches": [cache]}}
        self.source = {"type": "redis", "key_pattern": "key:{sha256}"}
        self._handle = f"key:{digest(KEY.encode()).hex()}"

    async def put(self, gateway, **fields):
        from redis.asyncio import Redis

        self._client = Redis(unix_socket_path=self._server.socket)
        await self._client.hset(self._handle, mapping=fields)

    async def used(self):
        return int(await self._client.hget(self._handle, "used_quota") or 0)

    async def close(self):
        self._server.remove()
        await self._client.aclose()


class InPostgres:
    def __init__(self, folder):
        self._server = PostgresServer().begin()
        host = {"host": str(self._server.folder), "user": "postgres", "database": "postgres"}
        self.changes = {"storage": {"databases": [{"name": "default", "driver": "postgres", **host}]}}
        self.source = {"type": "database"}

    async def put(self, gateway, **fields):
        import asyncpg

        self._client = await asyncpg.connect(host=str(self._server.folder), user="postgres")
        columns = "total_quota bigint, quota_unit text, used_quota bigint NOT NULL DEFAULT 0"
        await self._client.execute(f"CREATE TABLE api_keys (api_key text PRIMARY KEY, {columns})")
        insert = "INSERT INTO api_keys (api_key, total_quota, quota_unit) VALUES ($1, $2, $3)"
        await self._client.execute(insert, KEY, fields["total_quota"], fields["quota_unit"])

    async def used(self):
        return await self._client.fetchval("SELECT used_quota FROM api_keys")

    async def close(self):
        self._server.remove()
        self._client.terminate()


class InOurDatabase:
    """One SQLite file on one host, made by the command line."""

    def __init__(self, folder):
        self.source = {"type": "builtin"}
        self.changes = {"admin": {"token": "token-0123456789abcdef", "db_path": str(folder / "keys.db")}}

    async def put(self, gateway, **fields):
        self._gateway = gateway
        words = [f"{name}={value}" for name, value in {"key": KEY, **fields}.items()]
        await self._run("create", *words)

    async def used(self):
        return json.loads(await self._run("get", f"key={KEY}"))["used_quota"]

    async def close(self):
        pass

    async def _run(self, verb, *words):
        command = [sys.executable, "-m", "proxy", "keys", verb, "-c", str(self._gateway.config_file), *words]
        options = {"cwd": self._gateway.folder, "env": self._gateway.environ, "check": True}
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, **options)).stdout


def here(kind):
    is_missing = {InRedis: REDIS, InPostgres: POSTGRES}.get(kind, True) is None
    return pytest.param(kind, marks=pytest.mark.skipif(is_missing, reason="its server is not installed"))


async def spend(gateway):
    """Ask until refused; how many were let in."""
    async with await RawClient.connect(gateway.port) as client:
        passed = 0
        while (response := await client.ask(CHAT)).status == 200:
            passed += 1
    assert json.loads(response.body)["error"]["code"] == "insufficient_quota"
    assert (response.status, response.get(b"x-should-retry")) == (429, b"false")
    return passed


@pytest.mark.parametrize("unit", ["requests", "tokens"])
@pytest.mark.parametrize("kind", [here(kind) for kind in (InRedis, InPostgres, InOurDatabase)])
async def test_two_gateways_spend_one_quota_and_every_debit_counts(new_gateway, tmp_path, kind, unit):
    world = kind(tmp_path)
    each = 1 if unit == "requests" else USED["total_tokens"]
    body = answer(json.dumps({"object": "chat.completion", "usage": USED}).encode())
    try:
        async with ScriptedUpstream(replies(body)) as upstream:
            configuration = settings(
                upstream.port,
                auth={"enabled": True, "pipeline": [world.source]},
                **world.changes,
            )
            gateways = [new_gateway(configuration) for _ in range(2)]
            await world.put(gateways[0], total_quota=QUOTA * each, quota_unit=unit)

            passed = await asyncio.gather(*(spend(gateways[number % 2]) for number in range(CLIENTS)))

            assert QUOTA <= sum(passed) == len(upstream.requests)

            async def is_told():
                return await world.used() == sum(passed) * each

            await eventually(is_told, "every debit is in the store")
            assert {(await ask(one.port, CHAT)).status for one in gateways} == {429}
    finally:
        await world.close()
