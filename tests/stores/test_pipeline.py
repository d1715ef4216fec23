"""Several sources as one."""

import asyncio

import pytest

from proxy.access import Credential, Quota, digest, refusal
from proxy.stores.cached_keys import ASK
from proxy.stores.pipeline import Pipeline, StoreUnavailable

KEY = b"sk-1"
DIGEST = digest(KEY)


class Source:
    """Knows what it is told; a slow one has to be awaited, a dead one says so."""

    def __init__(self, source, /, *, is_slow=False, failure=None, **facts):
        self.name = source
        self.is_slow = is_slow
        self.failure = failure
        self.credential = Credential("0a0b0c0d", DIGEST, source=source, **facts) if facts else None
        self.debits = []
        self.is_closed = False

    def find_nowait(self, digest):
        return ASK if self.is_slow or self.failure else self.credential

    async def find(self, digest, key):
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(0)
        return self.credential

    def debit(self, credential, amount):
        self.debits.append((credential.name, amount))

    async def close(self):
        self.is_closed = True


def dead(name):
    return Source(name, failure=StoreUnavailable(name))


async def test_the_first_source_that_knows_a_key_decides():
    pipeline = Pipeline([Source("a"), Source("b", name="bob"), Source("c", name="carol")])

    assert pipeline.find_nowait(DIGEST).name == "bob"
    assert (await pipeline.find(DIGEST, KEY)).name == "bob"


async def test_a_key_that_no_source_knows_is_none():
    pipeline = Pipeline([Source("a"), Source("b")])

    assert pipeline.find_nowait(DIGEST) is None
    assert await pipeline.find(DIGEST, KEY) is None
    assert Pipeline([]).find_nowait(DIGEST) is None


async def test_nothing_is_decided_before_a_slow_source_in_front_was_asked():
    pipeline = Pipeline([Source("slow", is_slow=True, name="alice"), Source("b", name="bob")])

    assert pipeline.find_nowait(DIGEST) is ASK
    assert (await pipeline.find(DIGEST, KEY)).name == "alice"


async def test_a_slow_source_behind_the_one_that_decides_is_not_waited_for():
    assert Pipeline([Source("a", name="alice"), dead("b")]).find_nowait(DIGEST).name == "alice"


async def test_another_source_may_stand_in_for_one_that_is_down():
    assert (await Pipeline([dead("a"), Source("b", name="bob")]).find(DIGEST, KEY)).name == "bob"


async def test_a_key_that_nobody_else_knows_is_not_unknown_while_a_source_is_down():
    with pytest.raises(StoreUnavailable, match="source a"):
        await Pipeline([dead("a"), Source("b"), dead("c")]).find(DIGEST, KEY)


async def test_all_who_know_a_key_have_a_say():
    sources = [
        Source("a", name="alice"),
        Source("b"),
        Source("c", status="disabled"),
        Source("d", is_slow=True),
    ]
    pipeline = Pipeline(sources, mode="all")

    found = await pipeline.find(DIGEST, KEY)

    assert pipeline.find_nowait(DIGEST) is ASK
    assert found.name == "alice"
    assert refusal(found, 0.0, "") == "disabled"


async def test_all_find_without_waiting_what_need_not_be_waited_for():
    pipeline = Pipeline([Source("a", name="alice"), Source("b", name="bob")], mode="all")

    found = pipeline.find_nowait(DIGEST)

    assert (found.name, [other.name for other in found.also]) == ("alice", ["bob"])


async def test_where_all_must_agree_none_may_be_silent():
    with pytest.raises(StoreUnavailable):
        await Pipeline([Source("a", name="alice"), dead("b")], mode="all").find(DIGEST, KEY)


async def test_the_whole_may_take_only_so_long():
    class Stuck(Source):
        async def find(self, digest, key):
            await asyncio.Event().wait()

    with pytest.raises(StoreUnavailable):
        await Pipeline([Stuck("a")], timeout=0.01).find(DIGEST, KEY)


async def test_a_debit_goes_where_the_quota_is_in_its_unit():
    tokens = Source("a", name="t", quota=Quota(100))
    requests = Source("b", name="r", quota=Quota(100, unit="requests"))
    none = Source("c", name="n")
    pipeline = Pipeline([tokens, requests, none], mode="all")
    credential = pipeline.find_nowait(DIGEST)

    pipeline.debit(credential, requests=1)
    pipeline.debit(credential, tokens=50)
    pipeline.debit(credential)

    assert tokens.debits == [("t", 50)]
    assert requests.debits == [("r", 1)]
    assert none.debits == []


async def test_a_debit_of_a_source_that_is_gone_is_nobodys():
    pipeline = Pipeline([Source("a")])

    pipeline.debit(Credential("0a0b0c0d", DIGEST, source="gone", quota=Quota(1)), tokens=5)


async def test_closing_closes_every_source():
    sources = [Source("a"), Source("b")]

    await Pipeline(sources).close()

    assert all(source.is_closed for source in sources)
