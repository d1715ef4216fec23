"""The backlog through a disk's bad days."""

import logging
import resource
import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pytest

from proxy.sinks.backlog import ADOPT_SECONDS, MAX_HELD, REQUEUE_SECONDS, RETRY_SECONDS, Backlog, SpoolOptions
from proxy.sinks.slots import claim
from proxy.sinks.spool import Spool

SINKS = ("a", "b")


class Clocks:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000.0, 50.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def backlog_in(directory: Path | None, clocks: Clocks, sinks=SINKS, **options) -> Backlog:
    backlog = Backlog(
        sinks,
        SpoolOptions(directory, **options) if directory else None,
        wall=lambda: clocks.wall,
        monotonic=lambda: clocks.monotonic,
    )
    backlog.open()
    return backlog


def taken(backlog: Backlog, sink: str) -> list[bytes]:
    lines = []
    while (batch := backlog.next(sink)) is not None:
        lines += batch.lines
        backlog.acknowledge(sink, batch)
    return lines


def test_without_a_spool_records_are_kept_in_memory(clocks):
    backlog = backlog_in(None, clocks)
    backlog.add(b"1\n2")
    backlog.add(b"3")
    clocks.monotonic += 7
    backlog.tidy()

    assert (backlog.stats["a"].pending, backlog.stats["a"].oldest_age) == (3, 7.0)
    assert not backlog.is_durable
    assert (taken(backlog, "a"), taken(backlog, "b")) == ([b"1", b"2", b"3"], [b"1", b"2", b"3"])
    backlog.tidy()
    assert backlog.stats["a"].pending == 0


def test_memory_is_bounded_and_what_it_drops_is_counted(clocks, caplog):
    backlog = backlog_in(None, clocks, ["a"])
    for n in range(MAX_HELD // 100 + 3):
        backlog.add(b"\n".join([b"%d" % n] * 100))
    backlog.tidy()

    assert (backlog.stats["a"].pending, backlog.stats["a"].dropped) == (MAX_HELD, 300)
    assert taken(backlog, "a")[0] == b"3"
    assert [record.records for record in caplog.records if record.msg == "usage records dropped"] == [300]


def test_a_full_backlog_says_so(tmp_path, clocks):
    on_disk, in_memory = (
        backlog_in(tmp_path, clocks, ["a"], max_bytes=512 * 1024),
        backlog_in(None, clocks, ["a"]),
    )
    before = (on_disk.is_full(), in_memory.is_full())
    for _ in range(100):
        on_disk.add(b"x" * 10_000)
        in_memory.add(b"\n".join([b"x"] * 100))

    assert (before, (on_disk.is_full(), in_memory.is_full())) == ((False, False), (True, True))
    taken(on_disk, "a")
    on_disk.tidy()
    assert not on_disk.is_full()
    on_disk.close()


def test_what_is_added_is_on_disk_at_once(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks)
    backlog.add(b"1")

    with closing(sqlite3.connect(tmp_path / "usage-0.db")) as db:
        assert db.execute("SELECT body FROM batches").fetchall() == [(b"1",)]
    assert backlog.is_durable
    backlog.close()


def test_a_directory_that_appears_later_is_used_from_then_on(tmp_path, clocks, caplog):
    place = tmp_path / "place"
    place.write_text("in the way")
    backlog = backlog_in(place / "spool", clocks)
    backlog.add(b"1")
    backlog.add(b"2")
    assert (taken(backlog, "a"), backlog.is_durable, backlog.failures) == ([b"1", b"2"], False, 1)

    place.unlink()
    backlog.add(b"3")
    assert not backlog.is_durable  # not yet time to try again
    clocks.monotonic += RETRY_SECONDS
    backlog.tidy()

    assert backlog.is_durable
    assert (taken(backlog, "a"), taken(backlog, "b")) == ([b"3"], [b"1", b"2", b"3"])
    backlog.close()
    assert [record.msg for record in caplog.records if record.levelno >= logging.WARNING] == [
        "usage spool failed, records are kept in memory", "usage spool works again",
    ]  # fmt: skip


def test_a_batch_that_moves_to_disk_while_it_is_carried_is_not_carried_twice(tmp_path, clocks):
    place = tmp_path / "place"
    place.write_text("in the way")
    backlog = backlog_in(place / "spool", clocks)
    backlog.add(b"1")
    carried = backlog.next("a")
    place.unlink()
    clocks.monotonic += RETRY_SECONDS
    backlog.add(b"2")
    backlog.acknowledge("a", carried)

    assert (taken(backlog, "a"), taken(backlog, "b")) == ([b"2"], [b"1", b"2"])
    backlog.close()


def test_a_damaged_spool_is_moved_aside_and_a_new_one_begun(tmp_path, clocks, caplog):
    (tmp_path / "usage-0.db").write_bytes(b"half a file")
    backlog = backlog_in(tmp_path, clocks)
    backlog.add(b"1")

    assert backlog.is_durable
    assert taken(backlog, "a") == [b"1"]
    backlog.close()
    (aside,) = tmp_path.glob("*.corrupt-*")
    assert aside.read_bytes() == b"half a file"
    assert "usage spool is damaged, moved aside" in caplog.messages


def test_damage_that_shows_while_running_loses_nothing_new(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks, ["a"])
    for n in range(50):
        backlog.add(b"\n".join([b"%d" % n * 500] * 10))
    backlog._spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backlog._spool._db.execute("PRAGMA shrink_memory")  # else it lives on in the page cache
    with (tmp_path / "usage-0.db").open("r+b") as file:
        file.write(b"\xa5" * 40960)
    for n in range(5):
        backlog.add(b"new %d" % n)
        clocks.monotonic += RETRY_SECONDS
        backlog.tidy()

    lines = [line for line in taken(backlog, "a") if line.startswith(b"new")]
    assert lines == [b"new 0", b"new 1", b"new 2", b"new 3", b"new 4"]
    assert backlog.is_durable
    assert list(tmp_path.glob("*.corrupt-*"))
    backlog.close()


def test_a_spool_that_is_moved_away_is_begun_anew(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks)
    backlog.add(b"1")
    (tmp_path / "usage-0.db").rename(tmp_path / "elsewhere")
    backlog.tidy()
    clocks.monotonic += RETRY_SECONDS
    backlog.add(b"2")

    assert (tmp_path / "usage-0.db").exists()
    assert taken(backlog, "a") == [b"2"]
    backlog.close()


def test_what_an_ended_process_left_is_taken_over(tmp_path, clocks):
    for n in range(2):
        dead = Spool(
            tmp_path / f"usage-{n + 1}.db", SINKS, max_bytes=10**6, max_age=10**9, clock=lambda: clocks.wall
        )
        dead.append([(clocks.wall, b"%d" % n, ())])
        dead.acknowledge("a", dead.next("a"))
        dead.close()
    backlog = backlog_in(tmp_path, clocks)

    assert (taken(backlog, "a"), sorted(taken(backlog, "b"))) == ([], [b"0", b"1"])
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["usage-0.db"]
    backlog.close()


def test_what_ends_later_is_taken_over_too_but_not_what_lives(tmp_path, clocks):
    first, second = backlog_in(tmp_path, clocks), backlog_in(tmp_path, clocks)
    second.add(b"left")
    clocks.monotonic += ADOPT_SECONDS
    first.tidy()
    while_alive = taken(first, "a")
    second.close()
    clocks.monotonic += ADOPT_SECONDS
    first.tidy()

    assert (while_alive, taken(first, "a")) == ([], [b"left"])
    first.close()


def test_a_damaged_file_of_another_process_does_not_stop_ours(tmp_path, clocks):
    (tmp_path / "usage-3.db").write_bytes(b"rubbish" * 100)
    backlog = backlog_in(tmp_path, clocks)
    backlog.add(b"1")

    assert backlog.is_durable
    assert taken(backlog, "a") == [b"1"]
    backlog.close()


def test_a_clock_that_is_set_drops_nothing(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks, max_age=3600.0)
    backlog.add(b"1")
    clocks.wall += 10 * 365 * 86400
    clocks.monotonic += 60
    backlog.tidy()

    assert (backlog.stats["a"].dropped, backlog.stats["a"].oldest_age) == (0, 60.0)
    assert taken(backlog, "a") == [b"1"]
    backlog.close()


def test_what_is_refused_comes_again_after_some_hours(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks)
    backlog.add(b"1")
    taken(backlog, "a"), taken(backlog, "b")
    backlog.set_aside("a", [b"1"], "status 400")
    backlog.tidy()
    at_once = taken(backlog, "a")
    clocks.monotonic += REQUEUE_SECONDS
    backlog.tidy()

    assert (at_once, taken(backlog, "a"), taken(backlog, "b")) == ([], [b"1"], [])
    backlog.close()


def test_records_without_a_disk_are_lost_at_the_end_and_that_is_said(clocks, caplog):
    backlog = backlog_in(None, clocks)
    backlog.add(b"1\n2")
    backlog.close()

    assert [(record.msg, record.records) for record in caplog.records] == [
        ("usage records lost at the end", 2)
    ]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_survived_in_memory_and_recovered_from(small_disk, clocks):
    backlog = backlog_in(small_disk, clocks, ["a"])
    backlog.add(b"before")
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    for n in range(20):
        backlog.add(b"%d" % n + b"x" * 5000)
    during = backlog.is_durable
    delivered = backlog.next("a").lines[0]
    (small_disk / "filler").unlink()
    clocks.monotonic += RETRY_SECONDS
    backlog.add(b"after")

    assert (during, delivered, backlog.is_durable) == (False, b"before", True)
    lines = taken(backlog, "a")
    assert [line.partition(b"x")[0] for line in lines] == [
        b"before",
        *(b"%d" % n for n in range(20)),
        b"after",
    ]
    backlog.close()
    with closing(sqlite3.connect(small_disk / "usage-0.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_disk_that_turns_read_only_is_survived_in_memory_and_recovered_from(small_disk, clocks):
    backlog = backlog_in(small_disk, clocks, ["a"])
    backlog.add(b"before")
    assert taken(backlog, "a") == [b"before"]
    backlog.tidy()
    backlog.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    backlog = backlog_in(small_disk, clocks, ["a"])
    backlog.add(b"during")
    during = backlog.is_durable
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    clocks.monotonic += RETRY_SECONDS
    backlog.tidy()

    assert (during, backlog.is_durable) == (False, True)
    assert taken(backlog, "a") == [b"during"]
    backlog.close()


def test_a_write_that_the_system_forbids_is_survived_and_recovered_from(tmp_path, clocks):
    backlog = backlog_in(tmp_path, clocks, ["a"])
    backlog.add(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        for n in range(20):
            backlog.add(b"%d" % n + b"x" * 10_000)
        during = backlog.is_durable
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    clocks.monotonic += RETRY_SECONDS
    backlog.add(b"after")

    names = [line.partition(b"x")[0] for line in taken(backlog, "a")]
    assert (during, backlog.is_durable) == (False, True)
    assert names == [b"before", *(b"%d" % n for n in range(20)), b"after"]
    backlog.close()


def test_the_claim_ends_with_the_backlog(tmp_path, clocks):
    backlog_in(tmp_path, clocks).close()

    slot = claim(tmp_path)
    assert slot.path.name == "usage-0.db"
    slot.release()
