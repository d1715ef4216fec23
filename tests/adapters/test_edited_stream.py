"""A stream keeps its bytes but for the events that somebody edits, whatever happens."""

import itertools
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.edited_stream import EditedStream
from proxy.wire.sse import MAX_EVENT_BYTES

lines = st.sampled_from(
    [b"data: a", b"data: b", b"data:", b": c", b"event: e", b"id: 1", b"", b"", b"\xef\xbb\xbf"]
)
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])
streams = st.lists(st.tuples(lines, endings), max_size=12).map(
    lambda pairs: b"".join(line + ending for line, ending in pairs)
)


def replaces(data, by=b"data: edited\n\n"):
    return lambda event: by if event.data == data else None


def nothing(event):
    return None


def through(edits, stream, *cuts, cut=False):
    edited, places = EditedStream(edits), [0, *sorted(cuts), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(places)]
    return b"".join([edited.feed(piece) for piece in pieces]) + edited.finish(cut)


@given(streams, st.data())
def test_what_nobody_edits_keeps_its_bytes_however_it_is_cut(stream, data):
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))

    assert through([nothing], stream, *cuts) == stream
    assert through([nothing], stream, *cuts, cut=True) == stream


@given(streams, st.data())
def test_edits_are_the_same_however_the_stream_is_cut(stream, data):
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))

    assert through([replaces(b"a")], stream, *cuts) == through([replaces(b"a")], stream)


def test_the_first_who_has_an_edit_makes_it():
    edits = [nothing, replaces(b"a", b"first"), replaces(b"a", b"second")]

    assert through(edits, b"data: a\n\ndata: b\n\n") == b"firstdata: b\n\n"


def test_an_event_may_be_taken_out():
    assert through([replaces(b"a", b"")], b"data: a\n\ndata: b\n\n") == b"data: b\n\n"


def test_a_last_event_without_its_blank_line_is_edited_too():
    assert through([replaces(b"a")], b"data: a") == b"data: edited\n\n"


def test_what_there_is_of_an_event_that_was_cut_off_passes():
    assert through([replaces(b"a")], b"data: a", cut=True) == b"data: a"


def test_an_edit_that_fails_is_left_out_from_then_on(caplog):
    def fails(event):
        raise ValueError("a model's words")

    edited = EditedStream([fails, replaces(b"b")])
    with caplog.at_level(logging.ERROR):
        written = edited.feed(b"data: a\n\ndata: b\n\n")

    assert edited.failures == 1
    assert written == b"data: a\n\ndata: edited\n\n"
    assert [record.message for record in caplog.records] == ["an adapter failed"]
    assert "words" not in caplog.text


@pytest.mark.parametrize("size", [1, 1000, 10**7])
def test_behind_an_event_that_is_too_large_nothing_is_edited(size):
    stream = b"data: a\n\ndata: " + b"x" * (MAX_EVENT_BYTES + size) + b"\n\ndata: a\n\n"

    edited = EditedStream([replaces(b"a")])
    pieces = [stream[at : at + 10**6] for at in range(0, len(stream), 10**6)]
    written = b"".join([edited.feed(piece) for piece in pieces]) + edited.finish()

    assert written == b"data: edited\n\n" + stream[9:]
