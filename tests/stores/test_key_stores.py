"""What every key store promises, asked of each of them with something real behind it."""

import asyncio
from datetime import UTC, datetime

import pytest

from proxy.access import KeyLimits, Quota, digest, networks
from proxy.stores.key_store import LookupFailed, StoreUnavailable

KEY = "sk-llmproxy-Canary_0123456789"
OTHER = "sk-llmproxy-other"
NOW = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()
MARCH = datetime(2026, 3, 1, tzinfo=UTC).timestamp()

ALL_FIELDS = {
    "name": "alice",
    "user_id": "u1",
    "status": "disabled",
    "starts_at": "2026-01-01T00:00:00+00:00",
    "expires_at": "2027-01-01T00:00:00+00:00",
    "allowed_models": ["qwen*", "gpt-4o"],
    "allowed_ips": ["10.0.0.0/8"],
    "denied_ips": ["10.9.9.9"],
    "limits": {"requests_per_second": 2.5, "max_concurrent": 3},
    "labels": {"team": "red"},
    "total_quota": 1000,
    "used_quota": 10,
    "quota_unit": "requests",
    "quota_reset_period": "monthly",
    "last_reset_at": "2026-03-01T00:00:00+00:00",
    "balance": 2.5,
}


async def find(store, key=KEY):
    return await store.find(digest(key.encode()), key)


async def debit(store, amount, *, now=NOW, entry="e1", key=KEY):
    return await store.debit(await find(store, key), amount, now, entry=entry)


async def test_a_key_that_nobody_has_is_none(world):
    await world.put(OTHER)

    assert await find(world.store()) is None


async def test_everything_that_is_said_of_a_key_arrives(world):
    await world.put(KEY, **ALL_FIELDS)

    found = await find(world.store())

    assert (found.name, found.user_id, found.status, found.source) == ("alice", "u1", "disabled", "world")
    assert (found.key_id, found.digest) == (digest(KEY.encode()).hex()[:8], digest(KEY.encode()))
    assert (found.starts_at, found.expires_at) == (1767225600.0, 1798761600.0)
    assert found.allowed_models == ("qwen*", "gpt-4o")
    assert (found.allowed_ips, found.denied_ips) == (networks(["10.0.0.0/8"]), networks(["10.9.9.9"]))
    assert found.limits == KeyLimits(requests_per_second=2.5, max_concurrent=3)
    assert found.labels == {"team": "red"}
    assert found.quota == Quota(1000, 10, "requests", "monthly", MARCH)
    assert found.balance == 2.5


async def test_a_key_of_which_nothing_is_said_is_a_good_one(world):
    await world.put(KEY)

    found = await find(world.store())

    assert found.status == "active"
    assert (found.quota, found.limits, found.balance, found.expires_at) == (None, None, None, None)
    assert found.may_use("anything")


@pytest.mark.parametrize("almost", [KEY.lower(), KEY.upper(), KEY + "0", KEY[:-1], KEY + "%", KEY + "*", "*"])
async def test_a_key_that_is_only_like_it_is_another(world, almost):
    await world.put(KEY)

    assert await find(world.store(), almost) is None


@pytest.mark.parametrize(
    "odd", ["'", "' OR '1'='1", '"', "\\", ";", "{sha256}", "a:b:c", "%s", ":key", "\r\nGET x"]
)
async def test_a_key_is_never_read_as_anything_else(world, odd):
    await world.put(KEY)

    assert await find(world.store(), odd) is None


async def test_no_text_form_shows_a_key(world):
    await world.put(KEY, name="alice")

    assert KEY not in repr(await find(world.store()))


async def test_a_store_that_is_away_says_so_and_calls_nobody_unknown(world):
    await world.put(KEY)
    store = world.store()
    await world.silence()

    for key in (KEY, OTHER):
        with pytest.raises(StoreUnavailable) as raised:
            await find(store, key)
        assert KEY not in f"{raised.value}{raised.value.__cause__}"


async def test_lookups_at_the_same_time_do_not_disturb_each_other(world):
    for number in range(20):
        await world.put(f"sk-{number}", name=f"n{number}")
    store = world.store()

    found = await asyncio.gather(*(find(store, f"sk-{number}") for number in range(40)))

    assert [each and each.name for each in found] == [f"n{number}" for number in range(20)] + [None] * 20


# -- what is counted ------------------------------------------------------------------


@pytest.fixture
def counting(world):
    if not world.counts:
        pytest.skip("keeps its own books")
    return world


async def test_those_who_keep_their_own_books_count_nothing(world):
    if world.counts:
        pytest.skip("counts")
    await world.put(KEY, total_quota=100, used_quota=10)

    assert await debit(world.store(), 5) is None


async def test_a_debit_is_seen_by_every_store(counting):
    await counting.put(KEY, total_quota=100, used_quota=10)
    store = counting.store()

    quota = await debit(store, 7)

    assert quota.used == 17
    assert await counting.used(KEY) == 17
    assert (await find(counting.store())).quota.used == 17


async def test_debits_of_several_processes_at_once_all_count(counting):
    await counting.put(KEY, total_quota=10_000, used_quota=0)
    stores = [counting.store() for _ in range(3)]

    async def spend(store, name):
        for number in range(10):
            await debit(store, 3, entry=f"{name}-{number}")

    await asyncio.gather(*(spend(store, f"{index}") for index, store in enumerate(stores)))

    assert await counting.used(KEY) == 90


async def test_the_first_debit_of_a_period_begins_it_once(counting):
    await counting.put(
        KEY,
        total_quota=1000,
        used_quota=999,
        quota_reset_period="monthly",
        last_reset_at="2026-02-01T00:00:00+00:00",
    )
    stores = [counting.store() for _ in range(4)]

    await asyncio.gather(*(debit(store, 5, entry=f"{index}") for index, store in enumerate(stores)))

    assert await counting.used(KEY) == 20
    assert (await find(stores[0])).quota == Quota(1000, 20, "tokens", "monthly", MARCH)


async def test_a_period_that_never_began_begins_with_the_first_debit(counting):
    await counting.put(KEY, total_quota=1000, quota_reset_period="monthly")
    store = counting.store()

    await debit(store, 5)

    assert (await find(store)).quota == Quota(1000, 5, "tokens", "monthly", MARCH)


async def test_within_a_period_it_goes_on(counting):
    await counting.put(
        KEY,
        total_quota=1000,
        used_quota=10,
        quota_reset_period="monthly",
        last_reset_at="2026-03-01T00:00:00+00:00",
    )

    assert (await debit(counting.store(), 5)).used == 15
    assert await counting.used(KEY) == 15


async def test_a_key_that_is_gone_is_not_made_again(counting):
    await counting.put(KEY, total_quota=100)
    store = counting.store()
    credential = await find(store)
    await counting.remove(KEY)

    assert await store.debit(credential, 5, NOW, entry="e1") is None
    assert await find(store) is None


async def test_a_debit_that_is_tried_again_counts_once(counting):
    if not counting.repeats:
        pytest.skip("answers with its transaction")
    await counting.put(KEY, total_quota=100, used_quota=10)
    store = counting.store()

    await debit(store, 7, entry="same")
    await debit(store, 7, entry="same")

    assert await counting.used(KEY) == 17


async def test_a_debit_while_the_store_is_away_says_so(counting):
    await counting.put(KEY, total_quota=100)
    store = counting.store()
    credential = await find(store)
    await counting.silence()

    with pytest.raises(StoreUnavailable):
        await store.debit(credential, 5, NOW, entry="e1")


BAD = [
    ("allowed_ips", "ten"),
    ("expires_at", "soon"),
    ("limits", '{"requests_per_hour": 1}'),
    ("total_quota", "many"),
]


@pytest.mark.parametrize(("field", "value"), BAD)
@pytest.mark.parametrize("world", ["redis-hash", "webhook", "python"], indirect=True)
async def test_what_cannot_be_read_lets_nobody_in_and_names_the_field(world, field, value):
    await world.put(KEY, **{field: value})

    with pytest.raises(LookupFailed, match=field) as raised:
        await find(world.store())

    assert value not in str(raised.value)
