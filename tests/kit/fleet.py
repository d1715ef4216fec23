"""What conf/cluster.yaml describes, made real: Redis, PostgreSQL, gateways behind HAProxy, and engines."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg
import yaml
from kit.gateway import ROOT, Gateway, Settings, free_port, merged
from kit.servers import HaproxyServer, PostgresServer, RedisServer
from kit.upstream import RequestScript, ScriptedUpstream
from kit.wire import Request, chunk, chunked, sse_head
from kit.wire import answer as whole

from proxy.access import digest

CLUSTER = ROOT / "conf" / "cluster.yaml"
BALANCER = ROOT / "conf" / "haproxy.cfg"
_SCHEMA = re.search(
    r"```sql\n(CREATE TABLE api_keys .*?\);)", (ROOT / "docs" / "keys.md").read_text(), re.DOTALL
)


def usage_of(request: Request) -> dict[str, int]:
    """What the engine says this request used: its `user` names the tokens of the answer."""
    completion = int(json.loads(request.body).get("user") or 0) if request.body else 0
    return {"prompt_tokens": 30, "completion_tokens": completion, "total_tokens": 30 + completion}


async def answers(connection: Any, request: Request) -> None:
    connection.write(whole(json.dumps({"object": "chat.completion", "usage": usage_of(request)}).encode()))


@dataclass
class Streams:
    """An engine of streams that last; knows how many ran at once."""

    seconds: float
    running: int = 0
    most: int = 0
    begun: int = 0

    async def __call__(self, connection: Any, request: Request) -> None:
        if request.method != b"POST":
            connection.write(whole())
            return
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            connection.write(sse_head() + chunk(b'data: {"choices": []}\n\n'))
            await self._last(connection)
            event = b"data: " + json.dumps({"choices": [], "usage": usage_of(request)}).encode() + b"\n\n"
        finally:
            self.running -= 1
        if connection.ending is None:
            connection.write(chunked(event + b"data: [DONE]\n\n"))

    async def _last(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.seconds
        while connection.ending is None and loop.time() < end:  # noqa: ASYNC110 - it lasts
            await asyncio.sleep(0.05)


@dataclass
class Fleet:
    """`async with Fleet(folder, changes) as fleet: …`; `port` is the balancer's."""

    folder: Path
    changes: Mapping[str, Any] = field(default_factory=dict)
    stream_seconds: float = 2.0
    size: int = 2

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        if error is None:
            assert [alarm for gateway in self.gateways for alarm in gateway.new_alarms()] == []

    async def _start(self) -> None:
        self.redis = RedisServer()
        self._stack.callback(self.redis.remove)
        self.redis.begin()
        self.postgres = PostgresServer()
        self._stack.callback(self.postgres.remove)
        self.postgres.begin()
        self.database = await asyncpg.connect(host=str(self.postgres.folder), user="postgres")
        self._stack.push_async_callback(self.database.close)
        assert _SCHEMA is not None
        await self.database.execute(_SCHEMA[1])
        self.streams = Streams(self.stream_seconds)
        ports = [await self._engine(script) for script in (answers, answers, self.streams)]
        self.gateways = [await self._gateway(number, ports) for number in range(self.size)]
        self._balance()

    async def _engine(self, script: RequestScript) -> int:
        return (await self._stack.enter_async_context(ScriptedUpstream(script))).port

    async def _gateway(self, number: int, ports: list[int]) -> Gateway:
        environ = {
            "REDIS_ADDR": f"unix:{self.redis.socket}",
            "POSTGRES_HOST": str(self.postgres.folder),
            "POSTGRES_USER": "postgres",
            "POSTGRES_DB": "postgres",
        }
        gateway = Gateway(self.folder / f"gateway-{number}", self._settings(ports), environ=environ)
        self._stack.callback(gateway.kill)
        await asyncio.to_thread(gateway.start)
        return gateway

    def _settings(self, ports: list[int]) -> Settings:
        """The file as it is, but for where things are and what a test changes."""
        settings: Settings = yaml.safe_load(CLUSTER.read_text())
        backends = [one for pool in settings["pools"].values() for one in pool["backends"]]
        for backend, port in zip(backends, ports, strict=True):
            backend["url"] = f"http://127.0.0.1:{port}"
        settings["server"] |= {"workers": 1, "trusted_proxies": ["127.0.0.1"]}
        settings["metrics"] = {"enabled": True}
        return merged(settings, self.changes)

    def _balance(self) -> None:
        self.port = free_port()
        balancer = HaproxyServer()
        self._stack.callback(balancer.remove)
        addresses = {f"GATEWAY_{at + 1}": f"127.0.0.1:{one.port}" for at, one in enumerate(self.gateways)}
        balancer.begin(BALANCER, self.port, **addresses)

    async def add_key(self, key: str, **columns: Any) -> None:
        names = ["key_sha256", "name", *columns]
        values = [digest(key.encode()).hex(), key, *map(_value, columns.values())]
        places = ", ".join(f"${at + 1}" for at in range(len(values)))
        await self.database.execute(f"INSERT INTO api_keys ({', '.join(names)}) VALUES ({places})", *values)

    async def used_quota(self, key: str) -> int:
        found = "SELECT used_quota FROM api_keys WHERE name = $1"
        return int(await self.database.fetchval(found, key))

    async def records(self) -> list[Any]:
        """The usage records that have come to PostgreSQL."""
        exists = await self.database.fetchval("SELECT to_regclass('usage_records') IS NOT NULL")
        return list(await self.database.fetch("SELECT * FROM usage_records")) if exists else []


def _value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
