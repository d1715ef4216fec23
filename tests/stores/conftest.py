"""The servers and worlds that tests of key stores share."""

import asyncio

import pytest
from kit import key_worlds, servers


@pytest.fixture(scope="session")
def redis_server():
    if servers.REDIS is None:
        pytest.skip("redis-server is not installed")
    server = servers.RedisServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_server():
    if servers.POSTGRES is None:
        pytest.skip("postgresql is not installed")
    server = servers.PostgresServer().begin()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def maria_server():
    if servers.MARIADB is None:
        pytest.skip("mariadb-server is not installed")
    server = servers.MariaServer().begin()
    yield server
    server.remove()


@pytest.fixture
def running_redis(redis_server):
    """Running again, whatever the test before has done to it."""
    redis_server.stop()
    return redis_server.begin()


def redis_world(pattern, *, is_hash):
    return lambda get: key_worlds.RedisWorld(get("running_redis"), pattern, is_hash=is_hash)


def postgres_world(key_type, *, is_hashed):
    return lambda get: key_worlds.postgres_world(
        get("postgres_server"), key_type=key_type, is_hashed=is_hashed
    )


WORLDS = {
    "redis-hash": redis_world("llmproxy:key:{api_key}", is_hash=True),
    "redis-json": redis_world("llmproxy:key:{api_key}", is_hash=False),
    "redis-digest": redis_world("k:{sha256}", is_hash=True),
    "sqlite": lambda get: key_worlds.sqlite_world(get("tmp_path")),
    "postgres": postgres_world("text", is_hashed=False),
    "postgres-hex": postgres_world("char(70)", is_hashed=True),
    "postgres-bytes": postgres_world("bytea", is_hashed=True),
    "maria": lambda get: key_worlds.maria_world(get("maria_server")),
    "builtin": lambda get: key_worlds.BuiltinWorld(get("tmp_path")),
    "webhook": lambda get: key_worlds.WebhookWorld(),
    "python": lambda get: key_worlds.PythonWorld(is_async=False),
    "python-async": lambda get: key_worlds.PythonWorld(is_async=True),
}


@pytest.fixture(params=WORLDS)
async def world(request):
    """Each kind of store in turn, with nothing in it."""
    found = WORLDS[request.param](request.getfixturevalue)
    await found.start()
    yield found
    async with asyncio.timeout(10):
        await found.close()
