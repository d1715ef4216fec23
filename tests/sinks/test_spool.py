"""The spool file: nothing lost, nothing delivered out of turn, damage survived."""

import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.sinks.spool import MAX_RECORDS, MAX_ROWS, Spool, is_corrupt, move_aside

SINKS = ("a", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 60.0

    def __call__(self) -> float:
        return self.now


def opened(path: Path, sinks=SINKS, *, max_bytes=10**9, max_age=100.0, clock=None) -> Spool:
    return Spool(path, sinks, max_bytes=max_bytes, max_age=max_age, clock=clock or Clock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage-0.db"


def taken(spool: Spool, sink: str) -> list[bytes]:
    """Everything that is there for `sink`, delivered."""
    lines = []
    while (batch := spool.next(sink)) is not None:
        lines += batch.lines
        spool.acknowledge(sink, batch)
    return lines


def test_every_sink_gets_everything_once_and_in_order(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1\n2", ())])
        first = taken(spool, "a")
        spool.append([(2.0, b"3", ()), (2.0, b"4", ())])

        assert (first, taken(spool, "a"), taken(spool, "b")) == (
            [b"1", b"2"],
            [b"3", b"4"],
            [b"1", b"2", b"3", b"4"],
        )


def test_what_is_not_acknowledged_comes_again(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1", ())])

        assert [spool.next("a").lines, spool.next("a").lines] == [[b"1"], [b"1"]]


def test_a_new_start_goes_on_where_the_last_one_ended(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1", ())])
        taken(spool, "a")
        spool.append([(1.0, b"2", ())])

    with closing(opened(path)) as spool:
        assert spool.pending == {"a": 1, "b": 2}
        assert (taken(spool, "a"), taken(spool, "b")) == ([b"2"], [b"1", b"2"])


def test_a_sink_that_is_new_gets_what_is_still_there(path):
    with closing(opened(path, ["a"])) as spool:
        spool.append([(1.0, b"1", ())])

    with closing(opened(path, ["c"])) as spool:
        assert taken(spool, "c") == [b"1"]


def test_rows_that_all_have_had_are_deleted(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1" * 1000, ())])
        taken(spool, "a")
        spool.tidy()
        half_delivered = spool.bytes
        taken(spool, "b")
        spool.tidy()

        assert (half_delivered, spool.bytes) == (1000, 0)
        assert list(spool.entries()) == []


def test_rows_for_which_a_sink_was_too_early_are_skipped_for_it(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"%d" % n, ["a"]) for n in range(3 * MAX_ROWS)] + [(1.0, b"x", ["b"])])

        assert spool.pending == {"a": 1, "b": 3 * MAX_ROWS}
        assert (taken(spool, "a"), len(taken(spool, "b"))) == ([b"x"], 3 * MAX_ROWS)
        assert spool.pending == {"a": 0, "b": 0}


def test_a_backlog_is_handed_out_in_bounded_batches(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"\n".join([b"x"] * 100), ())] * 10)

        assert len(spool.next("a").lines) == -(-MAX_RECORDS // 100) * 100


def test_a_receipt_for_a_batch_that_moved_in_late_passes_over_nothing(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1", ())])
        (row,) = spool.append([(2.0, b"2", ())])
        carried = spool.next("b")  # any batch object will do; this one names the later row
        carried.row, carried.lines = row, [b"2"]
        spool.acknowledge("a", carried)

        assert spool.pending["a"] == 1
        assert taken(spool, "a") == [b"1"]


def test_the_oldest_make_room_for_the_newest_and_are_counted(path):
    with closing(opened(path, max_bytes=350)) as spool:
        spool.append([(1.0, b"1" * 100, ())])
        taken(spool, "a")
        for n in b"2345":
            spool.append([(1.0, bytes([n]) * 100, ())])

        assert spool.dropped == {"a": 1, "b": 2}
        assert spool.bytes == 300
        assert [line[:1] for line in taken(spool, "b")] == [b"3", b"4", b"5"]
        assert spool.pending == {"a": 3, "b": 0}


def test_what_nobody_took_for_too_long_is_dropped_and_counted(path):
    clock = Clock()
    clock.now = 1000.0
    with closing(opened(path, max_age=50.0, clock=clock)) as spool:
        spool.append([(1000.0, b"1", ())])
        clock.now = 1049.0
        spool.append([(1049.0, b"2", ())])
        spool.tidy()
        kept = spool.oldest("a")
        clock.now = 1051.0
        spool.tidy()

        assert (kept, spool.oldest("a"), spool.dropped) == (1000.0, 1049.0, {"a": 1, "b": 1})
        assert taken(spool, "a") == [b"2"]


def test_what_grew_old_while_nobody_ran_is_offered_before_it_goes(path):
    clock = Clock()
    clock.now = 1000.0
    with closing(opened(path, max_age=50.0, clock=clock)) as spool:
        spool.append([(1000.0, b"1", ())])
    clock.now = 90_000.0

    with closing(opened(path, max_age=50.0, clock=clock)) as spool:
        spool.tidy()
        offered = taken(spool, "a")
        clock.now += 51.0
        spool.tidy()

        assert offered == [b"1"]
        assert spool.dropped == {"a": 0, "b": 1}


def test_what_was_refused_is_offered_again_to_that_sink_alone(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1\n2", ())])
        taken(spool, "a"), taken(spool, "b")
        spool.set_aside("a", [b"2"], "status 400")
        aside = taken(spool, "a")
        spool.requeue()
        spool.requeue()

        assert (aside, taken(spool, "a"), taken(spool, "b")) == ([], [b"2"], [])


def test_the_file_is_for_its_owner_alone(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"1", ())])

        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {0o600}


def test_every_commit_reaches_the_disk(path):
    with closing(opened(path)) as spool:
        assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_failed_append_changes_nothing(path):
    with closing(opened(path)) as spool:
        with pytest.raises(TypeError):
            spool.append([(1.0, b"1", ()), (1.0, "no bytes", ())])

        assert (spool.bytes, spool.pending, spool.next("a")) == (0, {"a": 0, "b": 0}, None)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"no database at all, but some text" * 300])
def test_a_file_that_is_no_spool_is_told_from_one_that_is_empty(path, damage):
    path.write_bytes(damage)
    if not damage:
        opened(path).close()
        return

    with pytest.raises(sqlite3.DatabaseError) as raised:
        opened(path)

    assert is_corrupt(raised.value)


def test_damage_inside_a_spool_is_found_at_the_start(path):
    with closing(opened(path)) as spool:
        spool.append([(1.0, b"x" * 300, ())] * 200)
    content = bytearray(path.read_bytes())
    content[8192:20480] = b"\xa5" * (20480 - 8192)
    path.write_bytes(content)

    with pytest.raises(sqlite3.DatabaseError) as raised:
        opened(path)

    assert is_corrupt(raised.value)


def test_a_spool_of_a_newer_version_is_left_alone(path):
    opened(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 9")

    with pytest.raises(sqlite3.OperationalError, match="version 9") as raised:
        opened(path)

    assert not is_corrupt(raised.value)


def test_a_damaged_file_is_kept_under_another_name(path):
    path.write_bytes(b"rubbish")
    path.with_name(path.name + "-wal").write_bytes(b"log")

    target = move_aside(path, "T1")

    assert target.read_bytes() == b"rubbish"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "usage-0.db.corrupt-T1", "usage-0.db.corrupt-T1-wal",
    ]  # fmt: skip


def test_a_file_that_was_moved_away_is_noticed(path):
    with closing(opened(path)) as spool:
        before = spool.is_in_place()
        path.rename(path.with_name("elsewhere"))

        assert (before, spool.is_in_place()) == (True, False)


class SpoolModel(RuleBasedStateMachine):
    """Whatever the order of events: each sink gets each line, in order, repeats only after a restart."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "usage-0.db"
        self.spool = opened(self.path)
        self.written: list[bytes] = []
        self.given: dict[str, list[bytes]] = {sink: [] for sink in SINKS}
        self.carried: dict[str, object] = dict.fromkeys(SINKS)

    @rule(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def append(self, sizes):
        entries = []
        for size in sizes:
            lines = [b"%d" % (len(self.written) + n) for n in range(size)]
            self.written += lines
            entries.append((60.0, b"\n".join(lines), ()))
        self.spool.append(entries)

    @rule(sink=st.sampled_from(SINKS))
    def fetch(self, sink):
        self.carried[sink] = self.spool.next(sink)

    @rule(sink=st.sampled_from(SINKS))
    def acknowledge(self, sink):
        if self.carried[sink] is not None:
            self.given[sink] += self.carried[sink].lines
            self.spool.acknowledge(sink, self.carried[sink])
            self.carried[sink] = None

    @rule()
    def tidy(self):
        self.spool.tidy()

    @rule()
    def restart(self):
        self.spool.close()
        self.spool = opened(self.path)
        self.carried = dict.fromkeys(SINKS)

    @precondition(lambda self: self.written)
    @invariant()
    def every_sink_has_a_beginning_of_what_was_written(self):
        for sink in SINKS:
            assert self.given[sink] == self.written[: len(self.given[sink])]
            assert self.spool.pending[sink] == len(self.written) - len(self.given[sink])

    def teardown(self):
        for sink in SINKS:
            assert self.given[sink] + taken(self.spool, sink) == self.written
        self.spool.tidy()
        assert self.spool.bytes == 0
        self.spool.close()
        self.folder.cleanup()


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
