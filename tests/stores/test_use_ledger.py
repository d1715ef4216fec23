"""What keys of files have used: counted across reloads and restarts."""

import asyncio

import pytest
from kit.eventually import eventually

from proxy.access import Credential, Quota, digest
from proxy.stores.key_database import KeyDatabase
from proxy.stores.key_table import KeyTable
from proxy.stores.use_ledger import TableSource, UseLedger

MARCH_15 = 1_773_576_000.0
APRIL_2 = MARCH_15 + 18 * 86_400


class Clock:
    def __init__(self):
        self.now = MARCH_15

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def database(tmp_path):
    database = KeyDatabase(tmp_path / "keys.db", lambda entry: None)
    yield database
    await database.close()


def table(*, name="file", keys=("a",), **quota):
    """A table of one key, which may have several digests."""
    digests = [digest(key.encode()) for key in keys]
    counted = Quota(**{"total": 100, **quota})
    return KeyTable(
        name,
        [(found, Credential(digests[0].hex()[:8], found, source=name, quota=counted)) for found in digests],
    )


def source(ledger, **options):
    return TableSource(table(**options), ledger)


def find(source, key="a"):
    return source.find_nowait(digest(key.encode()))


async def test_a_debit_counts_for_the_next_lookup(clock):
    keys = source(UseLedger(clock))

    keys.debit(find(keys), 60)
    keys.debit(find(keys), 60)

    assert find(keys).quota.used == 120
    assert (await keys.find(digest(b"a"), b"a")).quota.used == 120


async def test_both_digests_of_a_key_share_its_quota(clock):
    keys = source(UseLedger(clock), keys=("a", "a2"))

    keys.debit(find(keys, "a"), 5)
    keys.debit(find(keys, "a2"), 5)

    assert find(keys, "a").quota.used == 10


async def test_equal_keys_of_two_sources_are_counted_apart(clock):
    ledger = UseLedger(clock)
    first, second = source(ledger, name="one"), source(ledger, name="two")

    first.debit(find(first), 5)

    assert (find(first).quota.used, find(second).quota.used) == (5, 0)


async def test_a_reload_goes_on_counting_even_what_the_old_table_still_serves(clock):
    ledger = UseLedger(clock)
    before, after = source(ledger), source(ledger)
    old = find(before)

    after.debit(find(after), 5)
    before.debit(old, 7)

    assert find(after).quota.used == 12


async def test_a_reload_may_change_the_quota_itself(clock):
    ledger = UseLedger(clock)
    before = source(ledger, total=100)
    before.debit(find(before), 60)

    after = source(ledger, total=50, unit="requests")

    assert find(after).quota == Quota(50, 60, "requests")


async def test_a_use_that_is_changed_in_the_file_counts_from_then_on(clock):
    ledger = UseLedger(clock)
    before = source(ledger, used=10)
    before.debit(find(before), 60)
    assert find(before).quota.used == 70

    assert find(source(ledger, used=0)).quota.used == 0


async def test_a_use_in_the_file_is_one_of_this_period_unless_it_says_otherwise(clock):
    assert find(source(UseLedger(clock), used=100, period="monthly")).quota.used_at(MARCH_15) == 100
    said = source(UseLedger(clock), used=100, period="monthly", last_reset_at=0.0)
    assert find(said).quota.used_at(MARCH_15) == 0


async def test_a_new_period_begins_anew(clock):
    keys = source(UseLedger(clock), period="monthly")
    keys.debit(find(keys), 60)
    clock.now = APRIL_2

    assert find(keys).quota.used_at(clock.now) == 0
    keys.debit(find(keys), 5)
    assert find(keys).quota.used_at(clock.now) == 5


async def test_without_a_quota_nothing_is_counted(clock):
    ledger = UseLedger(clock)
    credential = Credential("0a0b0c0d", digest(b"a"), source="file")
    keys = TableSource(KeyTable("file", [(digest(b"a"), credential)]), ledger)

    keys.debit(credential, 5)

    assert find(keys) is credential
    assert find(keys, "b") is None
    assert ledger.current(credential) is credential


async def test_a_restart_goes_on_where_the_last_process_ended(clock, database):
    ledger = UseLedger(clock, lambda: database)
    await ledger.load()
    keys = source(ledger, used=10, period="monthly")
    keys.debit(find(keys), 60)
    await ledger.close()

    again = UseLedger(clock, lambda: database)
    await again.load()

    assert find(source(again, used=10, period="monthly")).quota.used == 70
    assert find(source(again, used=10, period="monthly")).quota.used_at(APRIL_2) == 0
    await again.close()


async def test_what_is_used_reaches_the_disk_without_being_asked(clock, database):
    ledger = UseLedger(clock, lambda: database)
    await ledger.load()
    keys = source(ledger)
    for _ in range(10):
        keys.debit(find(keys), 1)

    async def is_kept():
        rows = await database.read(lambda book: book.file_uses())
        return [row[2] for row in rows] == [10]

    await eventually(is_kept, "ten are kept")
    await ledger.close()


async def test_a_database_that_cannot_be_read_is_said_and_counting_goes_on(clock, tmp_path, caplog):
    path = tmp_path / "keys.db"
    path.mkdir()
    database = KeyDatabase(path, lambda entry: None)
    ledger = UseLedger(clock, lambda: database)

    await ledger.load()
    keys = source(ledger)
    keys.debit(find(keys), 5)

    assert find(keys).quota.used == 5
    assert "count from their files" in caplog.text
    await ledger.close()
    await database.close()


async def test_what_cannot_be_written_now_is_written_later(clock, database, caplog):
    ledger = UseLedger(clock, lambda: database)
    await ledger.load()
    keys = source(ledger)
    await database.write(lambda book: book.execute("ALTER TABLE file_use RENAME TO away"))
    keys.debit(find(keys), 5)
    async with asyncio.timeout(10):
        await eventually(lambda: "cannot be kept" in caplog.text, "the failure is said")

    await database.write(lambda book: book.execute("ALTER TABLE away RENAME TO file_use"))
    await ledger.close()

    rows = await database.read(lambda book: book.file_uses())
    assert [row[2] for row in rows] == [5]


async def test_a_database_is_not_made_where_nobody_needs_one(clock, tmp_path):
    database = KeyDatabase(tmp_path / "keys.db", lambda entry: None)
    ledger = UseLedger(clock, lambda: database)

    await ledger.close()
    await database.close()

    assert not (tmp_path / "keys.db").exists()
