"""Every kind of key store with something real behind it, all worked the same way.

A world takes records in, hands out stores that read them, tells what a record
says has been used, and can fall silent.
"""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from kit.servers import MariaServer, PostgresServer, RedisServer
from redis.asyncio import Redis
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from proxy.access import digest
from proxy.config.schema_storage import Cache, Database
from proxy.stores.key_database import BuiltinKeys, KeyDatabase
from proxy.stores.key_editor import KeyEditor
from proxy.stores.key_fields import columns_of
from proxy.stores.key_store import KeyStore
from proxy.stores.python_keys import PythonKeys
from proxy.stores.redis_client import redis_client
from proxy.stores.redis_keys import RedisKeys
from proxy.stores.sql_engine import sql_engine
from proxy.stores.sql_keys import SqlKeys
from proxy.stores.webhook_keys import WebhookKeys

Fields = dict[str, Any]


class World:
    """`counts` tells whether quotas are kept here; `repeats` whether a debit may be sent twice."""

    counts = True
    repeats = False

    def __init__(self) -> None:
        self._stores: list[KeyStore] = []

    async def start(self) -> None: ...

    def make_store(self) -> KeyStore:
        raise NotImplementedError

    def store(self) -> KeyStore:
        """A new one each time, as another process would have it."""
        self._stores.append(self.make_store())
        return self._stores[-1]

    async def put(self, key: str, **fields: Any) -> None:
        raise NotImplementedError

    async def remove(self, key: str) -> None:
        raise NotImplementedError

    async def used(self, key: str) -> int:
        raise NotImplementedError

    async def silence(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


# -- Redis ------------------------------------------------------------------------------


class RedisWorld(World):
    repeats = True

    def __init__(self, server: RedisServer, pattern: str, *, is_hash: bool) -> None:
        super().__init__()
        self._server = server
        self._pattern = pattern
        self._is_hash = is_hash
        self.client = Redis(unix_socket_path=server.socket)

    async def start(self) -> None:
        await self.client.flushall()

    def make_store(self) -> KeyStore:
        cache = Cache(addr=f"unix:{self._server.socket}", read_timeout=1.0)
        return RedisKeys("world", redis_client(cache), self._pattern)

    def name(self, key: str) -> str:
        return self._pattern.replace("{api_key}", key).replace("{sha256}", digest(key.encode()).hex())

    async def put(self, key: str, **fields: Any) -> None:
        if not self._is_hash:
            await self.client.set(self.name(key), json.dumps(fields))
            return
        flat = {
            name: json.dumps(value) if isinstance(value, dict | list) else value
            for name, value in fields.items()
        }
        await self.client.hset(self.name(key), mapping=flat or {"name": ""})

    async def remove(self, key: str) -> None:
        await self.client.delete(self.name(key))

    async def used(self, key: str) -> int:
        if self._is_hash:
            return int(await self.client.hget(self.name(key), "used_quota"))
        return int(json.loads(await self.client.get(self.name(key)))["used_quota"])

    async def silence(self) -> None:
        self._server.stop()

    async def close(self) -> None:
        await super().close()
        with suppress(Exception):
            await self.client.aclose()


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


# -- databases --------------------------------------------------------------------------

_COLUMNS = {
    "name": ("text", "text", "varchar(99)"),
    "user_id": ("text", "varchar(99)", "varchar(99)"),
    "status": ("text", "text", "varchar(20)"),
    "starts_at": ("timestamp", "timestamptz", "datetime"),
    "expires_at": ("timestamp", "timestamptz", "datetime"),
    "allowed_models": ("text", "text[]", "text"),
    "allowed_ips": ("text", "cidr[]", "text"),
    "denied_ips": ("text", "text", "text"),
    "limits": ("text", "jsonb", "json"),
    "labels": ("text", "jsonb", "json"),
    "total_quota": ("integer", "bigint", "bigint"),
    "used_quota": ("integer", "bigint", "bigint"),
    "quota_unit": ("text", "text", "varchar(20)"),
    "quota_reset_period": ("text", "text", "varchar(20)"),
    "last_reset_at": ("timestamp", "timestamptz", "datetime"),
    "balance": ("real", "numeric(12, 4)", "decimal(12, 4)"),
}
_DIALECTS = ("sqlite", "postgresql", "mysql")
_TIMES = ("starts_at", "expires_at", "last_reset_at")


class SqlWorld(World):
    def __init__(self, url: URL, database: Database, *, key_type: str, is_hashed: bool = False) -> None:
        super().__init__()
        self.engine: AsyncEngine = create_async_engine(url)
        self._database = database
        self._dialect = _DIALECTS.index(url.get_backend_name())
        self._key_type = key_type
        self._is_hashed = is_hashed

    async def start(self) -> None:
        columns = ", ".join(f"{name} {types[self._dialect]}" for name, types in _COLUMNS.items())
        number = ("integer primary key", "serial primary key", "integer auto_increment primary key")[
            self._dialect
        ]
        async with self.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS api_keys"))
            statement = f"CREATE TABLE api_keys (id {number}, api_key {self._key_type}, {columns})"
            await connection.execute(text(statement))

    def make_store(self) -> KeyStore:
        key_format = "sha256" if self._is_hashed else "plain"
        return SqlKeys("world", sql_engine(self._database), key_format=key_format)

    def _key(self, key: str) -> Any:
        if not self._is_hashed:
            return key
        return digest(key.encode()) if self._key_type == "bytea" else digest(key.encode()).hex().upper()

    async def put(self, key: str, **fields: Any) -> None:
        values = {name: self._value(name, value) for name, value in fields.items()}
        names = ", ".join(["api_key", *values])
        places = ", ".join(f":{name}" for name in ["api_key", *values])
        for name in ("limits", "labels"):
            if self._dialect == 1:
                places = places.replace(f":{name}", f"cast(:{name} as jsonb)")
        async with self.engine.begin() as connection:
            statement = text(f"INSERT INTO api_keys ({names}) VALUES ({places})")
            await connection.execute(statement, {"api_key": self._key(key), **values})

    async def remove(self, key: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(
                text("DELETE FROM api_keys WHERE api_key = :key"), {"key": self._key(key)}
            )

    async def used(self, key: str) -> int:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT used_quota FROM api_keys WHERE api_key = :key"), {"key": self._key(key)}
            )
            return int(found.scalar_one())

    async def silence(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text("DROP TABLE api_keys"))

    async def close(self) -> None:
        await super().close()
        await self.engine.dispose()

    def _value(self, name: str, value: Any) -> Any:
        if name in _TIMES and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (value, moment, moment.replace(tzinfo=None))[self._dialect]
        is_array = self._dialect == 1 and _COLUMNS[name][1].endswith("[]")
        return json.dumps(value) if isinstance(value, dict | list) and not is_array else value


def sqlite_world(folder: Path) -> SqlWorld:
    path = str(folder / "keys.sqlite")
    url = URL.create("sqlite+aiosqlite", database=path)
    # NOCASE: databases may take keys for equal that are not
    return SqlWorld(url, Database(driver="sqlite", path=path), key_type="text collate nocase")


def postgres_world(server: PostgresServer, *, key_type: str, is_hashed: bool) -> SqlWorld:
    folder = str(server.folder)
    url = URL.create("postgresql+asyncpg", username="postgres", database="postgres", query={"host": folder})
    database = Database(driver="postgres", host=folder, user="postgres", database="postgres")
    return SqlWorld(url, database, key_type=key_type, is_hashed=is_hashed)


def maria_world(server: MariaServer) -> SqlWorld:
    query = {"unix_socket": server.socket}
    url = URL.create("mysql+aiomysql", username="test", database="test", query=query)
    database = Database(driver="mysql", host=server.socket, user="test", database="test")
    return SqlWorld(url, database, key_type="varchar(99)")


# -- our own database ---------------------------------------------------------------------


class BuiltinWorld(World):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "state" / "keys.db"
        self._databases: list[KeyDatabase] = []
        self._database = self._open()

    def _open(self) -> KeyDatabase:
        self._databases.append(KeyDatabase(self._path, lambda entry: None))
        return self._databases[-1]

    def make_store(self) -> KeyStore:
        return BuiltinKeys("world", self._open())

    async def put(self, key: str, **fields: Any) -> None:
        since = fields.pop("last_reset_at", None)
        columns = columns_of(fields)
        name = await self._database.change(
            lambda book: KeyEditor(book, "test", 1_700_000_000.0).create(digest(key.encode()), columns)
        )
        if since is not None:
            at = datetime.fromisoformat(since).timestamp()
            await self._database.write(
                lambda book: book.execute("UPDATE keys SET last_reset_at = ? WHERE key_id = ?", (at, name))
            )

    async def remove(self, key: str) -> None:
        name = digest(key.encode()).hex()[:8]
        await self._database.change(lambda book: KeyEditor(book, "test", 1_700_000_000.0).delete(name))

    async def used(self, key: str) -> int:
        name = digest(key.encode()).hex()[:8]
        query = "SELECT used_quota FROM keys WHERE key_id = ?"
        return int((await self._database.write(lambda book: book.execute(query, (name,)).fetchone()))[0])

    async def silence(self) -> None:
        await self._database.write(lambda book: book.execute("ALTER TABLE digests RENAME TO gone"))
        await self._database.write(lambda book: book.execute("ALTER TABLE keys RENAME TO also_gone"))

    async def close(self) -> None:
        await super().close()
        for database in self._databases:
            await database.close()


# -- those who keep their own books -------------------------------------------------------------


class WebhookWorld(World):
    counts = False

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Fields] = {}
        self.questions: list[dict[str, Any]] = []
        self.answer: web.Response | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/keys", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/keys"

    async def _answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        self.questions.append(question)
        if self.answer is not None:
            return self.answer
        record = self.records.get(question["api_key"])
        if record is None:
            return web.json_response({"error": {"code": "unknown"}}, status=404)
        return web.json_response({"status": 0, **record})

    def make_store(self) -> KeyStore:
        return WebhookKeys("world", aiohttp.ClientSession(), self.url, wall=lambda: 1_770_000_000.0)

    async def put(self, key: str, **fields: Any) -> None:
        self.records[key] = fields

    async def remove(self, key: str) -> None:
        del self.records[key]

    async def silence(self) -> None:
        await self._runner.cleanup()

    async def close(self) -> None:
        await super().close()
        await self._runner.cleanup()


class PythonWorld(World):
    counts = False

    def __init__(self, *, is_async: bool) -> None:
        super().__init__()
        self._is_async = is_async
        self._records: dict[str, Fields] = {}
        self._is_silent = False

    def make_store(self) -> KeyStore:
        return PythonKeys("world", self._check_later if self._is_async else self._check)

    def _check(self, key: str) -> Fields | None:
        if self._is_silent:
            raise ConnectionError(f"no answer for {key}")
        record = self._records.get(key)
        return None if record is None else {"status": "active", **record}

    async def _check_later(self, key: str) -> Fields | None:
        return self._check(key)

    async def put(self, key: str, **fields: Any) -> None:
        self._records[key] = fields

    async def remove(self, key: str) -> None:
        del self._records[key]

    async def silence(self) -> None:
        self._is_silent = True
