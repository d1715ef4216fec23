"""What is remembered of a slow store, for how long, and what happens while it is away."""

import asyncio

import pytest
from kit.eventually import eventually

from proxy.access import Credential, Quota, digest
from proxy.stores.cached_keys import ASK, DOWN_PAUSE, MAX_FLIGHTS, QUOTA_TTL, CachedStore, Memory
from proxy.stores.key_store import LookupFailed, StoreUnavailable

WALL = 1_770_000_000.0


class Clock:
    """Turned by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class ScriptedStore:
    """Answers from a dict; may be told to fail, or to wait until it is let go on."""

    name = "store"

    def __init__(self):
        self.records = {}
        self.asked = []
        self.debits = []
        self.failure = None
        self.gate = None
        self.is_closed = False

    async def find(self, digest, key):
        self.asked.append(key)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.records.get(key)

    async def debit(self, credential, amount, now, *, entry):
        if self.failure is not None:
            raise self.failure
        self.debits.append(amount)
        known = self.records[credential.name]
        quota = known.quota.debited(amount, now)
        self.records[credential.name] = Credential(known.key_id, known.digest, known.name, quota=quota)
        return quota

    async def close(self):
        self.is_closed = True

    def add(self, key, **facts):
        found = digest(key.encode())
        self.records[key] = Credential(found.hex()[:8], found, key, source=self.name, **facts)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store():
    return ScriptedStore()


@pytest.fixture
async def make(store, clock):
    made = []

    def make(timeout=5.0, **memory):
        made.append(CachedStore(store, Memory(**memory), timeout=timeout, monotonic=clock, wall=lambda: WALL))
        return made[-1]

    yield make
    for cached in made:
        await cached.close()


async def find(cached, key):
    return await cached.find(digest(key.encode()), key.encode())


def known(cached, key):
    return cached.find_nowait(digest(key.encode()))


async def test_nothing_is_known_before_the_store_was_asked(make, store):
    store.add("a")
    cached = make()

    assert known(cached, "a") is ASK
    assert (await find(cached, "a")).name == "a"
    assert known(cached, "a").name == "a"


async def test_a_known_key_is_asked_for_again_when_its_time_is_over(make, store, clock):
    store.add("a")
    cached = make(ttl=30.0)
    await find(cached, "a")

    clock.now += 29.9
    assert (await find(cached, "a")).name == "a"
    clock.now += 0.1
    assert known(cached, "a") is ASK
    await find(cached, "a")

    assert store.asked == ["a", "a"]


async def test_an_unknown_key_is_remembered_as_such_for_a_shorter_time(make, store, clock):
    cached = make(ttl=30.0, negative_ttl=5.0)

    assert await find(cached, "x") is None
    clock.now += 4.9
    assert known(cached, "x") is None
    clock.now += 0.1
    assert known(cached, "x") is ASK


async def test_a_key_that_was_unknown_is_known_once_it_was_made(make, store, clock):
    cached = make(negative_ttl=5.0)
    await find(cached, "a")
    store.add("a")
    clock.now += 5.0

    assert (await find(cached, "a")).name == "a"
    del store.records["a"]
    clock.now += 30.0
    assert await find(cached, "a") is None
    assert known(cached, "a") is None


@pytest.mark.parametrize("key", ["a", "x"])
async def test_with_no_time_nothing_is_remembered(make, store, key):
    store.add("a")
    cached = make(ttl=0.0, negative_ttl=0.0)
    await find(cached, key)

    assert known(cached, key) is ASK


async def test_a_flood_of_made_up_keys_drives_nobody_out(make, store):
    store.add("a")
    cached = make(max_entries=10)
    await find(cached, "a")

    for number in range(50):
        await find(cached, f"made-up-{number}")

    assert known(cached, "a").name == "a"
    assert sum(known(cached, f"made-up-{number}") is None for number in range(50)) == 10


async def test_the_oldest_known_key_goes_first(make, store):
    for key in "abc":
        store.add(key)
    cached = make(max_entries=2)

    for key in "abc":
        await find(cached, key)

    assert [known(cached, key) is ASK for key in "abc"] == [True, False, False]


async def test_many_requests_with_one_key_ask_once(make, store):
    store.add("a")
    store.gate = asyncio.Event()
    cached = make()

    waiting = [asyncio.create_task(find(cached, "a")) for _ in range(20)]
    await eventually(lambda: bool(store.asked), "the store is asked")
    store.gate.set()

    assert {found.name for found in await asyncio.gather(*waiting)} == {"a"}
    assert store.asked == ["a"]


async def test_a_request_that_leaves_disturbs_nobody_who_waits_with_it(make, store):
    store.add("a")
    store.gate = asyncio.Event()
    cached = make()
    first, second = (asyncio.create_task(find(cached, "a")) for _ in range(2))
    await eventually(lambda: bool(store.asked), "the store is asked")

    first.cancel()
    store.gate.set()

    assert (await second).name == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_slow_lookup_holds_up_no_other(make, store):
    store.add("slow")
    store.gate = asyncio.Event()
    cached = make()
    slow = asyncio.create_task(find(cached, "slow"))
    await eventually(lambda: bool(store.asked), "the store is asked")
    gate, store.gate = store.gate, None

    assert await find(cached, "quick") is None

    gate.set()
    assert (await slow).name == "slow"


async def test_lookups_at_once_are_bounded(make, store):
    store.gate = asyncio.Event()
    cached = make()
    flying = [asyncio.create_task(find(cached, f"k{number}")) for number in range(MAX_FLIGHTS)]
    await eventually(lambda: len(store.asked) == MAX_FLIGHTS, "all lookups are on their way")

    with pytest.raises(StoreUnavailable, match="too many"):
        await find(cached, "one-more")

    store.gate.set()
    assert await asyncio.gather(*flying) == [None] * MAX_FLIGHTS


@pytest.mark.parametrize("key", [b"\xff\xfe", b"a b", b"tab\t", b"a" * 2000, "schlüssel".encode()])
async def test_no_store_is_bothered_with_what_cannot_be_a_key(make, store, key):
    cached = make()

    assert await cached.find(digest(key), key) is None
    assert store.asked == []


# -- while it is away --------------------------------------------------------------------


async def test_an_outage_is_told_and_nobody_is_unknown_for_it(make, store, clock):
    cached = make()
    store.failure = StoreUnavailable("store", "gone")

    with pytest.raises(StoreUnavailable):
        await find(cached, "x")

    assert not cached.is_up
    assert cached.outages == 1
    assert known(cached, "x") is ASK


async def test_a_store_that_is_down_is_left_alone_for_a_moment(make, store, clock):
    cached = make()
    store.failure = StoreUnavailable("store")
    for key in "abc":
        with pytest.raises(StoreUnavailable):
            await find(cached, key)
    assert store.asked == ["a"]

    clock.now += DOWN_PAUSE
    store.failure = None
    store.add("a")

    assert (await find(cached, "a")).name == "a"
    assert cached.is_up


async def test_a_remembered_key_is_let_in_for_the_grace_and_not_longer(make, store, clock):
    store.add("a")
    cached = make(ttl=30.0, grace=60.0)
    await find(cached, "a")
    store.failure = StoreUnavailable("store")

    clock.now += 31
    assert (await find(cached, "a")).name == "a"
    assert known(cached, "a").name == "a"
    clock.now += 58.9
    assert (await find(cached, "a")).name == "a"
    clock.now += 0.2
    with pytest.raises(StoreUnavailable):
        await find(cached, "a")


async def test_who_has_grace_waits_for_a_silent_store_once(make, store, clock):
    store.add("a")
    cached = make(ttl=30.0, grace=60.0, timeout=0.01)
    await find(cached, "a")
    store.gate = asyncio.Event()
    clock.now += 31
    assert (await find(cached, "a")).name == "a"
    assert not cached.is_up
    store.asked.clear()

    patient = make(ttl=30.0, grace=60.0, timeout=60.0)
    patient.adopt(cached)
    clock.now += 2
    async with asyncio.timeout(10):  # of 60 s that the store is asked for
        for _ in range(3):
            assert (await find(patient, "a")).name == "a"

    await eventually(lambda: store.asked == ["a"], "one lookup is under way")
    store.gate.set()
    await eventually(lambda: patient.is_up, "the store is back")


async def test_without_a_grace_an_outage_is_an_outage(make, store, clock):
    store.add("a")
    cached = make(ttl=30.0)
    await find(cached, "a")
    store.failure = StoreUnavailable("store")
    clock.now += 30.0

    with pytest.raises(StoreUnavailable):
        await find(cached, "a")


async def test_who_was_unknown_gets_no_grace_and_no_refusal(make, store, clock):
    cached = make(negative_ttl=5.0, grace=60.0)
    await find(cached, "x")
    store.failure = StoreUnavailable("store")
    clock.now += 6.0

    with pytest.raises(StoreUnavailable):
        await find(cached, "x")


async def test_an_answer_that_does_not_come_is_an_outage(make, store):
    store.gate = asyncio.Event()
    cached = make(timeout=0.01)

    with pytest.raises(StoreUnavailable):
        await find(cached, "a")

    assert not cached.is_up


async def test_one_key_that_cannot_be_read_is_no_outage(make, store):
    cached = make()
    store.failure = LookupFailed("store", "limits cannot be read")
    with pytest.raises(LookupFailed):
        await find(cached, "bad")
    store.failure = None
    store.add("good")

    assert (await find(cached, "good")).name == "good"
    assert cached.outages == 0


async def test_whatever_a_store_raises_nobody_is_unknown_and_no_log_shows_it(make, store, caplog):
    cached = make()
    store.failure = RuntimeError("something about sk-canary")

    with pytest.raises(StoreUnavailable) as raised:
        await find(cached, "sk-canary")

    assert "RuntimeError" in str(raised.value)
    assert "sk-canary" not in caplog.text + str(raised.value)


async def test_closing_disappoints_those_who_wait(make, store):
    store.gate = asyncio.Event()
    cached = make()
    waiting = asyncio.create_task(find(cached, "a"))
    await eventually(lambda: bool(store.asked), "the store is asked")
    unborn = asyncio.create_task(find(cached, "b"))
    await asyncio.sleep(0)

    await cached.close()

    for task in (waiting, unborn):
        with pytest.raises(StoreUnavailable):
            await task
    assert store.is_closed


# -- changes and quotas --------------------------------------------------------------------


async def test_after_a_change_every_key_is_asked_for_again(make, store):
    store.add("a")
    cached = make()
    await find(cached, "a")
    await find(cached, "x")

    cached.forget()

    assert known(cached, "a") is ASK
    assert known(cached, "x") is ASK


async def test_an_answer_from_before_a_change_is_not_remembered(make, store):
    store.gate = asyncio.Event()
    cached = make()
    waiting = asyncio.create_task(find(cached, "a"))
    await eventually(lambda: bool(store.asked), "the store is asked")

    store.add("a")
    cached.forget()
    store.gate.set()
    await waiting

    assert store.asked == ["a", "a"]
    assert known(cached, "a").name == "a"


async def test_a_key_with_a_quota_is_looked_at_every_second(make, store, clock):
    store.add("a", quota=Quota(100))
    cached = make(ttl=30.0)
    await find(cached, "a")

    clock.now += QUOTA_TTL

    assert known(cached, "a") is ASK


async def test_what_was_used_counts_at_once_and_reaches_the_store(make, store, clock):
    store.add("a", quota=Quota(100))
    cached = make()
    credential = await find(cached, "a")

    cached.debit(credential, 60)
    cached.debit(credential, 60)

    assert known(cached, "a").quota.used == 120
    await eventually(lambda: sum(store.debits) == 120, "the store has all")
    assert store.records["a"].quota.used == 120
    assert known(cached, "a").quota.used == 120


async def test_what_the_store_does_not_know_yet_is_not_forgotten_by_asking_it(make, store, clock):
    store.add("a", quota=Quota(100))
    cached = make()
    credential = await find(cached, "a")
    cached.debit(credential, 60)
    clock.now += QUOTA_TTL

    found = await find(cached, "a")

    assert found.quota.used in (60, 120)  # the store may have it by now and not have said so
    await eventually(lambda: known(cached, "a").quota.used == 60, "the store's figure counts")


async def test_what_others_used_is_learned_from_the_store(make, store):
    store.add("a", quota=Quota(100, used=90))
    cached = make()
    credential = await find(cached, "a")
    store.add("a", quota=Quota(100, used=99))

    cached.debit(credential, 1)

    await eventually(lambda: known(cached, "a").quota.used == 100, "the store's figure counts")
