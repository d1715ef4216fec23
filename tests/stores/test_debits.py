"""Debits on their way: added up, sent in order, tried again, not lost and not doubled."""

import asyncio

import pytest
from kit.eventually import eventually

from proxy.access import Credential, Quota
from proxy.stores import debits
from proxy.stores.debits import Debits
from proxy.stores.key_store import LookupFailed, StoreUnavailable

ALICE = Credential("aaaaaaaa", b"a" * 32, source="store", quota=Quota(100))
BOB = Credential("bbbbbbbb", b"b" * 32, source="store", quota=Quota(100))


class Book:
    """The other end: keeps what came, once per entry, and fails as often as it is told to."""

    def __init__(self):
        self.entries = {}
        self.tries = []
        self.failures = []
        self.gate = None

    async def debit(self, credential, amount, now, *, entry):
        self.tries.append((credential.key_id, amount, entry))
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            failure, is_done = self.failures.pop(0)
            if is_done:
                self.entries[entry] = (credential.key_id, amount)
            raise failure
        self.entries[entry] = (credential.key_id, amount)
        return Quota(100, used=amount)

    def total(self, key_id):
        return sum(amount for name, amount in self.entries.values() if name == key_id)


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def settled():
    return []


@pytest.fixture
async def queue(book, settled):
    queue = Debits(
        book.debit,
        lambda credential, quota: settled.append((credential.key_id, quota.used)),
        wall=lambda: 0.0,
        timeout=5.0,
    )
    yield queue
    await queue.close()


async def until(holds):
    await eventually(lambda: bool(holds()), "the debits have got so far")


async def test_each_debit_arrives_once_and_is_confirmed(queue, book, settled):
    queue.add(ALICE, 5)
    queue.add(BOB, 7)
    await until(lambda: len(settled) == 2)

    assert (book.total("aaaaaaaa"), book.total("bbbbbbbb")) == (5, 7)
    assert settled == [("aaaaaaaa", 5), ("bbbbbbbb", 7)]
    assert queue.waiting(ALICE.digest) == 0


async def test_what_comes_while_one_is_on_its_way_travels_together(queue, book, settled):
    book.gate = asyncio.Event()
    queue.add(ALICE, 1)
    await until(lambda: book.tries)
    for _ in range(50):
        queue.add(ALICE, 2)

    assert queue.waiting(ALICE.digest) == 101
    book.gate.set()
    await until(lambda: len(settled) == 2)

    assert [amount for _, amount, _ in book.tries] == [1, 100]


async def test_a_store_that_is_away_gets_the_same_entry_again(queue, book, settled):
    book.failures = [(StoreUnavailable("store"), True), (StoreUnavailable("store"), False)]
    queue.add(ALICE, 5)
    await until(lambda: settled)

    assert [amount for _, amount, _ in book.tries] == [5, 5, 5]
    assert len({entry for *_, entry in book.tries}) == 1
    assert book.total("aaaaaaaa") == 5


async def test_while_it_is_away_what_waits_is_known(queue, book):
    book.failures = [(StoreUnavailable("store"), False)] * 2
    queue.add(ALICE, 5)
    await until(lambda: book.tries)
    queue.add(ALICE, 3)

    assert queue.waiting(ALICE.digest) == 8


async def test_a_record_that_nobody_can_add_to_holds_up_no_other(queue, book, settled, caplog):
    book.failures = [(LookupFailed("store", "used_quota cannot be added to"), False)]
    queue.add(ALICE, 5)
    queue.add(BOB, 7)
    await until(lambda: settled)

    assert settled == [("bbbbbbbb", 7)]
    assert queue.lost == 1
    assert "could not be debited" in caplog.text


async def test_a_debit_that_takes_too_long_is_tried_again_with_its_entry(book, settled):
    queue = Debits(book.debit, lambda *_: settled.append(1), wall=lambda: 0.0, timeout=0.01)
    book.gate = asyncio.Event()
    queue.add(ALICE, 5)
    await until(lambda: len(book.tries) == 2)
    book.gate.set()
    await until(lambda: settled)
    await queue.close()

    assert len({entry for *_, entry in book.tries}) == 1


async def test_closing_sends_what_waits(queue, book):
    queue.add(ALICE, 5)
    queue.add(BOB, 7)

    await queue.close()

    assert (book.total("aaaaaaaa"), book.total("bbbbbbbb")) == (5, 7)


async def test_closing_goes_on_with_the_entry_that_was_on_its_way(queue, book):
    book.gate = asyncio.Event()
    queue.add(ALICE, 5)
    await until(lambda: book.tries)
    queue.add(ALICE, 2)
    book.gate.set()

    await queue.close()

    assert book.total("aaaaaaaa") == 7
    assert len(book.entries) == 2


async def test_what_cannot_be_sent_at_the_end_is_counted_and_said(queue, book, caplog):
    book.failures = [(StoreUnavailable("store"), False)] * 99
    queue.add(ALICE, 5)
    queue.add(BOB, 5)

    await queue.close()

    assert queue.lost == 2
    assert "lost" in caplog.text


async def test_what_waits_is_bounded(queue, book):
    book.gate = asyncio.Event()
    for number in range(debits.MAX_WAITING + 3):
        queue.add(Credential("cccccccc", number.to_bytes(32)), 1)

    assert queue.lost == 3
    book.gate.set()
    await eventually(lambda: len(book.entries) == debits.MAX_WAITING, "all others arrive", patience=60)
