"""Redis and PostgreSQL go silent or away under a running gateway, and come back."""

import json

import pytest
from kit.client import ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.servers import POSTGRES, REDIS, PostgresServer, RedisServer
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, get, post
from prometheus_client.parser import text_string_to_metric_families

KEY = "sk-outage-0123456789"
BEARER = b"Authorization: Bearer " + KEY.encode()
USED = {"prompt_tokens": 100, "completion_tokens": 900, "total_tokens": 1000}
ANSWER = answer(json.dumps({"object": "chat.completion", "usage": USED}).encode())

needs_redis = pytest.mark.skipif(REDIS is None, reason="needs redis-server")
needs_postgres = pytest.mark.skipif(POSTGRES is None, reason="needs postgresql")


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(replies(ANSWER)) as scripted:
        yield scripted


@pytest.fixture
def redis():
    server = RedisServer().begin()
    yield server
    server.remove()


@pytest.fixture
def postgres():
    server = PostgresServer().begin()
    yield server
    server.remove()


async def chat(gateway):
    return await ask(gateway.port, post(b"/v1/chat/completions", b'{"model":"m","messages":[]}', BEARER))


async def figure(gateway, name):
    page = (await ask(gateway.port, get(b"/metrics"))).body.decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    (value,) = [sample.value for sample in samples if sample.name == name]
    return value


def limited(redis, upstream, on_failure):
    return settings(
        upstream.port,
        auth={"enabled": True, "pipeline": [{"type": "static", "keys": [{"key": KEY, "name": "k"}]}]},
        rate_limit={
            "enabled": True,
            "storage": "redis",
            "on_store_failure": on_failure,
            "per_key": {"tokens_per_minute": 60_000, "max_concurrent": 4},
        },
        storage={"caches": [{"name": "default", "addr": f"unix:{redis.socket}"}]},
    )


@needs_redis
@pytest.mark.parametrize("outage", ["silent", "away"])
async def test_while_redis_is_silent_or_away_all_pass_and_are_charged_later(
    new_gateway, upstream, redis, outage
):
    gateway = new_gateway(limited(redis, upstream, "fail_open"))
    assert (await chat(gateway)).get(b"x-ratelimit-limit-tokens") == b"60000"

    redis.pause() if outage == "silent" else redis.stop()
    answers = [await chat(gateway) for _ in range(20)]

    assert [one.status for one in answers] == [200] * 20
    assert {one.get(b"x-ratelimit-limit-tokens") for one in answers} == {None}
    assert await figure(gateway, "llmproxy_limit_store_up") == 0
    assert await figure(gateway, "llmproxy_limit_unchecked_total") == 20
    assert await figure(gateway, "llmproxy_limit_store_outages_total") == 1

    redis.resume() if outage == "silent" else redis.begin()

    async def is_up():
        return await figure(gateway, "llmproxy_limit_store_up") == 1

    await eventually(is_up, "Redis is back")

    async def is_charged():  # a minute's worth flows back in a minute
        return int((await chat(gateway)).get(b"x-ratelimit-remaining-tokens") or 60_000) < 45_000

    await eventually(is_charged, "what was used in the outage is charged")
    assert await figure(gateway, "llmproxy_limit_lost_total") <= 1  # the charge that was under way


@needs_redis
async def test_where_it_is_configured_nobody_passes_without_redis(new_gateway, upstream, redis):
    gateway = new_gateway(limited(redis, upstream, "fail_closed"))
    assert (await chat(gateway)).status == 200

    redis.pause()
    answers = [await chat(gateway) for _ in range(5)]

    assert [one.status for one in answers] == [503] * 5
    assert {one.get(b"retry-after") for one in answers} == {b"1"}
    assert await figure(gateway, "llmproxy_limit_turned_away_total") == 5
    assert len(upstream.requests) == 1

    redis.resume()

    async def passes():
        return (await chat(gateway)).status == 200

    await eventually(passes, "requests pass again")


@needs_postgres
async def test_a_known_key_outlives_an_outage_of_its_database_and_others_get_503(
    new_gateway, upstream, postgres
):
    import asyncpg

    database = await asyncpg.connect(host=str(postgres.folder), user="postgres")
    await database.execute("CREATE TABLE api_keys (api_key text PRIMARY KEY, name text)")
    await database.execute("INSERT INTO api_keys VALUES ($1, 'k')", KEY)
    await database.close()
    host = {"name": "default", "driver": "postgres", "host": str(postgres.folder)}
    gateway = new_gateway(
        settings(
            upstream.port,
            auth={
                "enabled": True,
                "pipeline": [{"name": "keys", "type": "database", "timeout": "1s"}],
                "cache": {"ttl": "100ms", "negative_ttl": "100ms", "grace": "10m"},
            },
            storage={"databases": [host | {"user": "postgres", "database": "postgres"}]},
        )
    )
    other = post(b"/v1/chat/completions", b'{"model":"m"}', b"X-API-Key: sk-unknown-0123456789")
    assert (await chat(gateway)).status == 200
    assert (await ask(gateway.port, other)).status == 401
    assert await figure(gateway, "llmproxy_key_source_up") == 1

    postgres.stop()

    async def is_refused():
        assert (await chat(gateway)).status == 200
        refused = await ask(gateway.port, other)
        if refused.status == 401:  # remembered as unknown, for a tenth of a second
            return False
        return (refused.status, refused.get(b"retry-after")) == (503, b"2")

    await eventually(is_refused, "the outage is noticed")
    for _ in range(10):
        assert await is_refused()
    assert await figure(gateway, "llmproxy_key_source_up") == 0
    assert await figure(gateway, "llmproxy_key_source_outages_total") >= 1
