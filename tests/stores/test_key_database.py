"""The built-in database behind the event loop: caches follow changes, lookups wait for nobody."""

import asyncio
import threading

import pytest

from proxy.access import digest
from proxy.stores.cached_keys import ASK, CachedStore, Memory
from proxy.stores.key_database import BuiltinKeys, KeyDatabase
from proxy.stores.key_editor import KeyEditor
from proxy.stores.key_fields import columns_of
from proxy.stores.key_store import StoreUnavailable

NOW = 1_773_576_000.0
KEY = b"sk-canary"


@pytest.fixture
async def database(tmp_path):
    database = KeyDatabase(tmp_path / "keys.db", lambda entry: None)
    yield database
    await database.close()


def editing(**fields):
    """A call that makes the key, or changes it."""

    def call(book):
        editor = KeyEditor(book, "test", NOW)
        name = book.key_id_of(digest(KEY))
        return (
            editor.update(name, columns_of(fields))
            if name
            else editor.create(digest(KEY), columns_of(fields))
        )

    return call


def cached(database):
    store = BuiltinKeys("builtin", database)
    memory = CachedStore(store, Memory(ttl=1000), timeout=5, monotonic=lambda: 0.0, wall=lambda: NOW)
    store.on_change(memory.forget)
    return memory


async def test_a_change_is_known_to_the_very_next_request(database):
    keys = cached(database)
    assert await keys.find(digest(KEY), KEY) is None

    await database.change(editing(status="active"))
    assert (await keys.find(digest(KEY), KEY)).status == "active"
    await database.change(editing(status="disabled"))

    assert keys.find_nowait(digest(KEY)) is ASK
    assert (await keys.find(digest(KEY), KEY)).status == "disabled"
    await keys.close()


async def test_a_source_that_was_closed_hears_of_nothing(database):
    keys = cached(database)
    await keys.find(digest(KEY), KEY)
    await keys.close()

    await database.change(editing())

    assert keys.find_nowait(digest(KEY)) is None


async def test_a_lookup_does_not_wait_for_a_change(database):
    await database.change(editing(name="before"))
    begun, gate = threading.Event(), threading.Event()

    def slow(book):
        with book.transaction():
            book.execute("UPDATE keys SET name = 'after'")
            begun.set()
            gate.wait(10)

    changing = asyncio.create_task(database.change(slow))
    await asyncio.to_thread(begun.wait, 10)

    found = await database.read(lambda book: book.find(digest(KEY), "b"))

    assert found.name == "before"
    gate.set()
    await changing
    assert (await database.read(lambda book: book.find(digest(KEY), "b"))).name == "after"


async def test_a_file_that_cannot_be_used_is_said(tmp_path):
    path = tmp_path / "keys.db"
    path.write_bytes(b"not a database at all" * 100)
    database = KeyDatabase(path, lambda entry: None)

    with pytest.raises(StoreUnavailable, match="NOTADB"):
        await database.read(lambda book: book.find(digest(KEY), "b"))
    await database.close()


async def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    database = KeyDatabase(tmp_path / "file" / "keys.db", lambda entry: None)

    with pytest.raises(StoreUnavailable):
        await database.read(lambda book: book.find(digest(KEY), "b"))
    await database.close()


async def test_a_file_that_was_repaired_is_used_again(tmp_path):
    path = tmp_path / "keys.db"
    path.mkdir()
    database = KeyDatabase(path, lambda entry: None)
    with pytest.raises(StoreUnavailable):
        await database.change(editing())

    path.rmdir()
    await database.change(editing())

    assert await database.read(lambda book: book.find(digest(KEY), "b")) is not None
    await database.close()
