"""The built-in key database: what is in the file, who may read it, and that changes are whole."""

import sqlite3
import stat
import threading

import pytest

from proxy.access import KeyLimits, Quota, digest, networks
from proxy.stores.key_book import KeyBook, NewerDatabase
from proxy.stores.key_editor import KeyEditor, KeyExists, NoSuchKey, Synced
from proxy.stores.key_fields import columns_of

NOW = 1_773_576_000.0  # 2026-03-15T12:00:00Z
KEY, OTHER = b"sk-llmproxy-canary-1", b"sk-llmproxy-canary-2"


@pytest.fixture
def audited():
    return []


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "keys.db"


@pytest.fixture
def book(path, audited):
    book = KeyBook.open(path, audited.append)
    yield book
    book.close()


def edit(book, at=NOW, who="admin:1"):
    return KeyEditor(book, who, at)


def create(book, key=KEY, at=NOW, **fields):
    return edit(book, at).create(digest(key), columns_of(fields))


def update(book, key_id, at=NOW, /, **fields):
    return edit(book, at).update(key_id, columns_of(fields))


# -- keys -------------------------------------------------------------------------------


def test_a_key_is_found_by_its_digest_with_all_that_was_said_of_it(book):
    name = create(
        book,
        name="alice",
        user_id="u1",
        status="disabled",
        starts_at="2026-01-01T00:00:00Z",
        expires_at=1798761600,
        allowed_models=["qwen*"],
        allowed_ips=["10.0.0.0/8"],
        denied_ips=["10.9.9.9"],
        limits={"requests_per_second": 2.5, "max_concurrent": 3, "burst_size": None},
        labels={"team": "red"},
        total_quota=1000,
        used_quota=10,
        quota_unit="requests",
        quota_reset_period="monthly",
        balance=2.5,
    )

    found = book.find(digest(KEY), "builtin")

    assert name == found.key_id == digest(KEY).hex()[:8]
    assert (found.name, found.user_id, found.status, found.source) == ("alice", "u1", "disabled", "builtin")
    assert (found.starts_at, found.expires_at) == (1767225600.0, 1798761600.0)
    assert found.allowed_models == ("qwen*",)
    assert (found.allowed_ips, found.denied_ips) == (networks(["10.0.0.0/8"]), networks(["10.9.9.9"]))
    assert found.limits == KeyLimits(requests_per_second=2.5, max_concurrent=3)
    assert found.labels == {"team": "red"}
    assert found.quota == Quota(1000, 10, "requests", "monthly", NOW)
    assert found.balance == 2.5


def test_who_is_not_there_is_none(book):
    create(book)

    assert book.find(digest(OTHER), "builtin") is None
    assert book.get("00000000", NOW) is None
    assert book.key_id_of(digest(OTHER)) is None


def test_the_file_holds_no_key(book, path):
    name = create(book, name="alice")
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 60)
    book.close()

    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"alice" in content
    assert KEY not in content
    assert OTHER not in content


def test_nobody_else_may_read_the_file(book, path):
    create(book)

    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_is_made_once(book):
    create(book)

    with pytest.raises(KeyExists):
        create(book)


def test_two_keys_never_share_an_id(book):
    edit(book).create(bytes.fromhex("ab" * 32), {})

    with pytest.raises(KeyExists):
        edit(book).create(bytes.fromhex("ab" * 31 + "cd"), {})


def test_an_update_changes_what_is_named_and_nothing_else(book):
    name = create(book, name="alice", user_id="u1", expires_at="2027-01-01T00:00:00Z")

    assert update(book, name, NOW + 5, name="bob", expires_at="") is True

    found = book.get(name, NOW + 5)
    assert (found["name"], found["user_id"], found["expires_at"]) == ("bob", "u1", None)
    assert (found["created_at"], found["updated_at"]) == ("2026-03-15T12:00:00Z", "2026-03-15T12:00:05Z")


def test_an_update_that_changes_nothing_leaves_no_trace(book, audited):
    name = create(book, name="alice")

    assert update(book, name, NOW + 5, name="alice") is False
    assert book.get(name, NOW)["updated_at"] == "2026-03-15T12:00:00Z"
    assert len(audited) == 1


def test_what_is_deleted_is_gone_with_its_digests(book):
    name = create(book)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 60)

    edit(book).delete(name)

    assert book.find(digest(KEY), "b") is None
    assert book.find(digest(OTHER), "b") is None
    assert create(book) == name


@pytest.mark.parametrize("change", ["update", "delete", "rotate"])
def test_a_key_that_is_not_there_cannot_be_changed(book, change):
    calls = {
        "update": lambda: update(book, "00000000", name="x"),
        "delete": lambda: edit(book).delete("00000000"),
        "rotate": lambda: edit(book).rotate("00000000", digest(KEY), keep_until=NOW),
    }

    with pytest.raises(NoSuchKey):
        calls[change]()


def test_a_list_shows_the_newest_first_in_pages(book):
    names = [create(book, f"sk-{number}".encode(), NOW + number // 2) for number in range(5)]

    first, total = book.page(0, 2, NOW)
    last, _ = book.page(4, 2, NOW)

    assert total == 5
    assert [key["key_id"] for key in first] == [names[4], names[3]]
    assert [key["key_id"] for key in last] == [names[0]]
    assert book.page(9, 2, NOW) == ([], 5)


# -- two digests -------------------------------------------------------------------------


def test_while_a_key_is_exchanged_both_are_valid_and_are_one(book):
    name = create(book, name="alice", total_quota=100)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 60)

    old, new = book.find(digest(KEY), "b"), book.find(digest(OTHER), "b")

    assert (old.key_id, new.key_id, new.name) == (name, name, "alice")
    assert (old.expires_at, new.expires_at) == (NOW + 60, None)
    assert old.handle == new.handle


def test_an_old_digest_does_not_outlive_its_key(book):
    name = create(book, expires_at=NOW + 10)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 60)

    assert book.find(digest(KEY), "b").expires_at == NOW + 10


def test_there_are_never_more_than_two(book):
    name = create(book)
    for number in range(5):
        edit(book, NOW + number).rotate(name, digest(b"sk-%d" % number), keep_until=NOW + 1000)

    found = [book.find(digest(b"sk-%d" % number), "b") for number in range(5)]
    assert [credential is not None for credential in found] == [False, False, False, True, True]
    assert book.find(digest(KEY), "b") is None


def test_a_digest_whose_time_is_over_is_dropped_with_the_next_exchange(book):
    name = create(book)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 0.5)
    assert book.find(digest(KEY), "b").expires_at == NOW + 0.5

    edit(book, NOW + 1).rotate(name, digest(b"third"), keep_until=NOW + 60)

    assert book.find(digest(KEY), "b") is None
    assert book.find(digest(OTHER), "b").expires_at == NOW + 60


def test_an_exchange_may_end_the_old_digest_at_once(book):
    name = create(book)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW)

    assert book.find(digest(KEY), "b") is None


def test_a_second_exchange_does_not_lengthen_the_first(book):
    name = create(book)
    edit(book).rotate(name, digest(OTHER), keep_until=NOW + 10)
    edit(book).rotate(name, digest(b"third"), keep_until=NOW + 1000)

    digests = book.get(name, NOW)["digests"]

    assert len(digests) == 2
    assert [found["expires_at"] for found in digests] == [None, "2026-03-15T12:16:40Z"]


def test_nobodys_key_can_be_taken_over_by_an_exchange(book):
    name = create(book)
    create(book, OTHER)

    with pytest.raises(KeyExists):
        edit(book).rotate(name, digest(OTHER), keep_until=NOW)
    assert book.find(digest(KEY), "b").expires_at is None


# -- synchronising ------------------------------------------------------------------------


def entries(*keys, **fields):
    return [(digest(key), columns_of(fields)) for key in keys]


def test_a_synchronisation_makes_changes_and_leaves_the_rest(book):
    create(book, KEY, name="x", user_id="u1")
    create(book, OTHER)

    first = edit(book).sync(entries(KEY, b"new", name="y"), "incremental")
    again = edit(book).sync(entries(KEY, b"new", name="y"), "incremental")

    assert first == Synced(created=1, updated=1)
    assert again == Synced(unchanged=2)
    assert book.get(book.key_id_of(digest(KEY)), NOW)["user_id"] == "u1"
    assert book.find(digest(OTHER), "b") is not None


def test_a_full_synchronisation_deletes_whoever_is_not_in_it(book):
    create(book, KEY)
    create(book, OTHER)

    assert edit(book).sync(entries(KEY), "full") == Synced(deleted=1, unchanged=1)
    assert edit(book).sync([], "full") == Synced(deleted=1)
    assert book.page(0, 9, NOW) == ([], 0)


def test_a_synchronisation_is_whole_or_not_at_all(book, audited):
    create(book, KEY)
    clash = [(bytes.fromhex("ab" * 32), {}), (bytes.fromhex("ab" * 31 + "cd"), {})]

    with pytest.raises(KeyExists):
        edit(book).sync(clash, "full")

    assert book.page(0, 9, NOW)[1] == 1
    assert [entry["action"] for entry in audited] == ["create"]
    assert len(book.history(9)) == 1


# -- the audit log -------------------------------------------------------------------------


def test_every_change_is_written_with_who_when_and_what(book, audited):
    name = create(book, name="alice")
    edit(book, NOW + 1, "admin:2").update(name, columns_of({"name": "bob", "allowed_models": ["a"]}))
    edit(book, NOW + 2).rotate(name, digest(OTHER), keep_until=NOW + 60)
    edit(book, NOW + 3).delete(name)

    assert [(entry["at"], entry["who"], entry["action"], entry["changes"]) for entry in audited] == [
        (NOW, "admin:1", "create", {"name": "alice"}),
        (NOW + 1, "admin:2", "update", {"name": ["alice", "bob"], "allowed_models": [[], ["a"]]}),
        (NOW + 2, "admin:1", "rotate", {"expires_at": "2026-03-15T12:01:00Z"}),
        (NOW + 3, "admin:1", "delete", {}),
    ]
    assert {entry["key_id"] for entry in audited} == {name}


def test_the_history_outlives_the_key_and_the_process(book, path, audited):
    name = create(book, name="alice")
    edit(book).delete(name)
    book.close()
    again = KeyBook.open(path, audited.append)

    history = again.history(10)

    assert [entry["action"] for entry in history] == ["delete", "create"]
    assert history[1]["changes"] == {"name": "alice"}
    assert again.history(1) == history[:1]
    again.close()


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'x'", "DELETE FROM audit"])
def test_the_history_cannot_be_rewritten(book, statement):
    create(book)

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        book.execute(statement)


# -- quotas -------------------------------------------------------------------------------


def test_a_debit_counts_and_begins_periods(book):
    name = create(book, total_quota=100, used_quota=90, quota_reset_period="monthly")

    assert book.debit(name, 5, NOW).used == 95
    april = NOW + 30 * 86_400
    assert book.debit(name, 5, april) == Quota(100, 5, "tokens", "monthly", 1775001600.0)
    assert book.get(name, april)["used_quota"] == 5


def test_what_is_shown_is_the_use_of_this_period(book):
    name = create(book, total_quota=100, used_quota=90, quota_reset_period="daily")

    assert book.get(name, NOW)["used_quota"] == 90
    assert book.get(name, NOW + 86_400)["used_quota"] == 0


def test_a_use_that_is_written_counts_from_then_on(book):
    name = create(book, total_quota=100, quota_reset_period="monthly")

    update(book, name, NOW, used_quota=100)

    assert book.find(digest(KEY), "b").quota.used_at(NOW) == 100


@pytest.mark.parametrize("name", ["00000000", None])
def test_without_a_quota_there_is_nothing_to_debit(book, name):
    assert book.debit(name or create(book), 5, NOW) is None


def test_debits_of_several_threads_all_count(path, book):
    name = create(book, total_quota=10_000)

    def spend():
        own = KeyBook.open(path, lambda entry: None)
        for _ in range(25):
            own.debit(name, 1, NOW)
        own.close()

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert book.get(name, NOW)["used_quota"] == 100


# -- the file -----------------------------------------------------------------------------


def test_what_was_written_is_there_after_a_crash(path, book):
    """The other connection sees what would be there if this process were killed now."""
    name = create(book, name="alice")

    other = KeyBook.open(path, lambda entry: None)

    assert other.get(name, NOW)["name"] == "alice"
    other.close()


def test_a_change_that_fails_in_the_middle_leaves_nothing(book, audited):
    with pytest.raises(ZeroDivisionError), book.transaction():
        book.execute("INSERT INTO keys (key_id, created_at, updated_at) VALUES ('x', 0, 0)")
        book.record({"at": NOW, "who": "x", "action": "x", "key_id": "x", "changes": {}})
        _ = 1 / 0

    assert book.row("x") is None
    assert audited == []
    create(book)
    assert len(audited) == 1


def test_several_processes_may_make_the_file_at_once(path):
    books, barrier = [], threading.Barrier(8)

    def make():
        barrier.wait()
        book = KeyBook.open(path, lambda entry: None)
        books.append(book.page(0, 1, NOW))
        book.close()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert books == [([], 0)] * 8


def test_a_file_of_a_newer_version_is_left_alone(path, book):
    book.execute("PRAGMA user_version = 99")
    book.close()

    with pytest.raises(NewerDatabase):
        KeyBook.open(path, lambda entry: None)


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "keys.db"
    path.write_bytes(b"these are somebody's notes, and not at all a database" * 100)

    with pytest.raises(sqlite3.DatabaseError):
        KeyBook.open(path, lambda entry: None)
    assert path.read_bytes().startswith(b"these are")
