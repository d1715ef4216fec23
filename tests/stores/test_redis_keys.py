"""What is particular to Redis: types, spellings, markers, outages."""

import asyncio
import json

import pytest
from kit.eventually import eventually
from kit.key_worlds import RedisWorld

from proxy.access import digest
from proxy.config.schema_storage import Cache
from proxy.stores.cached_keys import ASK, CachedStore, Memory
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.redis_client import redis_client
from proxy.stores.redis_scripts import MARKER_SECONDS

KEY = "sk-canary"
NOW = 1_773_576_000.0  # 2026-03-15T12:00:00Z


@pytest.fixture
async def world(running_redis):
    world = RedisWorld(running_redis, "llmproxy:key:{api_key}", is_hash=True)
    await world.start()
    yield world
    await world.close()


async def find(store, key=KEY):
    return await store.find(digest(key.encode()), key)


async def test_a_record_of_another_type_lets_nobody_in(world):
    await world.client.rpush(world.name(KEY), "a")

    with pytest.raises(LookupFailed, match="neither a hash nor a text"):
        await find(world.store())


@pytest.mark.parametrize("text", ["1", "null", "[]", '"active"', "{", ""])
async def test_a_text_that_is_no_json_object_lets_nobody_in(world, text):
    await world.client.set(world.name(KEY), text)

    with pytest.raises(LookupFailed):
        await find(world.store())


SINCE = [
    # as it stands in the record, as it stands there after the first debit of March
    ("1769904000", "1772323200"),
    ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
    ("", "2026-03-01T00:00:00Z"),
]


@pytest.mark.parametrize(("before", "after"), SINCE)
async def test_a_new_period_is_written_in_the_spelling_of_the_old_one(world, before, after):
    await world.put(KEY, total_quota=100, used_quota=90, quota_reset_period="monthly", last_reset_at=before)
    store = world.store()
    credential = await find(store)

    for entry in ("e1", "e2"):
        await store.debit(credential, 5, NOW, entry=entry)

    assert await world.client.hmget(world.name(KEY), "used_quota", "last_reset_at") == [b"10", after.encode()]


@pytest.mark.parametrize(
    ("before", "after"), [(1769904000, 1772323200), ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z")]
)
async def test_json_keeps_everything_else_as_it_was(running_redis, before, after):
    world = RedisWorld(running_redis, "k:{api_key}", is_hash=False)
    await world.start()
    record = {
        "a": [],
        "b": {},
        "c": 9007199254740993,
        "total_quota": 100,
        "quota_reset_period": "monthly",
        "used_quota": 90,
    }
    await world.put(KEY, **record, last_reset_at=before)
    await world.client.expire(world.name(KEY), 1000)
    store = world.store()

    await store.debit(await find(store), 5, NOW, entry="e1")

    written = json.loads(await world.client.get(world.name(KEY)))
    assert written == {**record, "used_quota": 5, "last_reset_at": after}
    assert 0 < await world.client.ttl(world.name(KEY)) <= 1000
    await world.close()


async def test_markers_go_away_and_can_be_no_keys(world):
    await world.put(KEY, total_quota=100)
    store = world.store()
    await store.debit(await find(store), 5, NOW, entry="e1")

    names = [name async for name in world.client.scan_iter("*")]
    (marker,) = (name for name in names if name != world.name(KEY).encode())
    assert 0 < await world.client.ttl(marker) <= MARKER_SECONDS
    assert not marker.startswith(b"llmproxy:key:")


async def test_what_cannot_be_added_to_is_said(world):
    await world.put(KEY, total_quota=100)
    store = world.store()
    credential = await find(store)
    await world.client.hset(world.name(KEY), "used_quota", "many")

    with pytest.raises(LookupFailed, match="used_quota"):
        await store.debit(credential, 5, NOW, entry="e1")


async def test_a_quota_that_is_no_more_counts_nothing(running_redis):
    world = RedisWorld(running_redis, "k:{api_key}", is_hash=False)
    await world.start()
    await world.put(KEY, total_quota=100)
    store = world.store()
    credential = await find(store)
    await world.put(KEY, total_quota=0)

    assert await store.debit(credential, 5, NOW, entry="e1") is None
    await world.close()


async def test_an_outage_ends_by_itself(world, running_redis):
    await world.put(KEY, name="alice")
    store = world.store()
    assert (await find(store)).name == "alice"
    running_redis.stop()
    with pytest.raises(StoreUnavailable):
        await find(store)

    running_redis.begin()
    await world.put(KEY, name="alice")

    assert (await find(store)).name == "alice"


async def test_a_server_that_says_nothing_is_not_waited_for_long(world, running_redis):
    await world.put(KEY)
    store = world.store()
    await find(store)
    running_redis.pause()
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable):
                await find(store)
    finally:
        running_redis.resume()

    assert (await find(store)).status == "active"


async def test_debits_wait_for_the_end_of_an_outage_and_count_once(world, running_redis):
    await world.put(KEY, total_quota=1000, used_quota=0)
    store = CachedStore(world.store(), Memory(), timeout=0.5, monotonic=lambda: 0.0, wall=lambda: NOW)
    credential = await store.find(digest(KEY.encode()), KEY.encode())
    running_redis.pause()
    store.debit(credential, 5)
    await eventually(lambda: store.retried_debits > 0, "the debit was sent and not answered")
    store.debit(credential, 5)
    running_redis.resume()

    await eventually_used(world, 10)
    await store.close()
    assert await world.used(KEY) == 10


async def eventually_used(world, used):
    async def holds():
        return await world.used(KEY) == used

    await eventually(holds, f"{used} are debited")


async def test_a_store_with_grace_serves_whom_it_knew(world, running_redis):
    await world.put(KEY, name="alice")
    now = [100.0]
    store = CachedStore(
        world.store(), Memory(ttl=1, grace=60), timeout=0.5, monotonic=lambda: now[0], wall=lambda: NOW
    )
    await store.find(digest(KEY.encode()), KEY.encode())
    running_redis.stop()
    now[0] += 2

    assert store.find_nowait(digest(KEY.encode())) is ASK
    assert (await store.find(digest(KEY.encode()), KEY.encode())).name == "alice"
    with pytest.raises(StoreUnavailable):
        await store.find(digest(b"other"), b"other")
    await store.close()


async def test_a_client_is_made_of_its_part_of_the_configuration():
    tcp = redis_client(
        Cache(addr="[::1]:7000", username="u", password="p", db=3, pool_size=7)
    ).connection_pool
    tls = redis_client(Cache(addr=":6380", tls=True, dial_timeout=1.5, read_timeout=0.5)).connection_pool
    unix = redis_client(Cache(addr="unix:/run/redis.sock")).connection_pool

    assert [tcp.connection_kwargs[name] for name in ("host", "port", "username", "password", "db")] == [
        "::1", 7000, "u", "p", 3,
    ]  # fmt: skip
    assert tcp.max_connections == 7
    assert tls.connection_class.__name__ == "SSLConnection"
    assert [tls.connection_kwargs[name] for name in ("host", "socket_connect_timeout", "socket_timeout")] == [
        "127.0.0.1", 1.5, 0.5,
    ]  # fmt: skip
    assert unix.connection_kwargs["path"] == "/run/redis.sock"
