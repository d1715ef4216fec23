import time
from itertools import combinations_with_replacement, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.sse import MAX_EVENT_BYTES, EventTooLarge, SseDecoder, SseEvent, encode

CASES = [
    (b"data: a\n\n", [SseEvent(b"a")]),
    (b"data:a\r\n\r\n", [SseEvent(b"a")]),
    (b"data: a\r\r", [SseEvent(b"a")]),
    (b"data:  a \n\n", [SseEvent(b" a ")]),
    (b"data\n\n", [SseEvent(b"")]),
    (b"data: a\ndata: b\r\ndata\n\n", [SseEvent(b"a\nb\n")]),
    (b"\xef\xbb\xbfdata: a\n\n", [SseEvent(b"a")]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [SseEvent(b"a"), SseEvent()]),
    (b": ping\n\ndata: a\n\n", [SseEvent(comment=b"ping"), SseEvent(), SseEvent(b"a")]),
    (b":\n", [SseEvent(comment=b"")]),
    (b"data: a\n: inside\n\n", [SseEvent(b"a")]),
    (b"event: e\nid: 7\nretry: 250\ndata: a\n\n", [SseEvent(b"a", b"e", b"7", 250)]),
    (b"id: a\0b\nretry: 1x\ndata: a\n\n", [SseEvent(b"a")]),
    (b"id\ndata: a\n\n", [SseEvent(b"a", id=b"")]),
    (b"event: e\n\ndata: a\n\n", [SseEvent(event=b"e"), SseEvent(b"a")]),
    (b"other: x\ndatax: y\n\n", [SseEvent()]),
    (
        b"data: \xe2\x80\xa8\xe2\x80\xa9\xc2\x85\x0b\x0c\x1c\n\n",
        [SseEvent("\u2028\u2029\x85\x0b\x0c\x1c".encode())],
    ),
    (b"data: {}\n\ndata: [DONE]\n\n", [SseEvent(b"{}"), SseEvent(b"[DONE]")]),
    (b"data: {}\n\n\n\ndata: x\n\n", [SseEvent(b"{}"), SseEvent(), SseEvent(), SseEvent(b"x")]),
    (b"data: a\n\n: c\ndata: b\n\n", [SseEvent(b"a"), SseEvent(comment=b"c"), SseEvent(b"b")]),
]


def fields(events):
    """The events without the bytes they came in."""
    return [event._replace(raw=b"") for event in events]


def without_blanks(events):
    """The LF of a CR LF that was cut is given out by `finish` where no event follows."""
    return [event for event in fields(events) if event != SseEvent()]


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_a_table_of_streams(stream, expected):
    decoder = SseDecoder()

    assert fields(decoder.feed(stream)) == expected
    assert decoder.finish() == []


@pytest.mark.parametrize(("stream", "expected"), CASES)
def test_same_events_however_the_bytes_are_cut(stream, expected):
    for first, second in combinations_with_replacement(range(len(stream) + 1), 2):
        decoder = SseDecoder()
        pieces = stream[:first], stream[first:second], stream[second:]

        events = [event for piece in pieces for event in decoder.feed(piece)]
        rest = decoder.finish()

        assert fields(events) == expected
        assert without_blanks(rest) == []
        assert b"".join(event.raw for event in events + rest) == stream


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"event: e", b": c", b"", b"", b"id: 1", b"\xef\xbb\xbf", b"data"]
    ),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(LINES, st.lists(ENDS, min_size=12, max_size=12), st.lists(st.integers(0, 120), max_size=6))
def test_any_cut_gives_the_same_and_all_bytes_are_kept(lines, ends, cuts):
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False)) + b"data: last"
    whole = SseDecoder()
    expected = whole.feed(stream) + whole.finish()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    decoder = SseDecoder()
    events = [event for a, b in pairwise(places) for event in decoder.feed(stream[a:b])]
    events += decoder.finish()

    assert fields(events) == fields(expected)
    assert b"".join(event.raw for event in events) == stream


def test_an_event_arrives_with_its_last_byte():
    decoder = SseDecoder()

    assert decoder.feed(b"data: a\n") == []
    assert decoder.held == 8
    assert fields(decoder.feed(b"\n")) == [SseEvent(b"a")]
    assert decoder.held == 0
    assert fields(decoder.feed(b"data: b\r\n\r")) == [SseEvent(b"b")]
    assert fields(decoder.feed(b"\ndata: c\n\n")) == [SseEvent(b"c")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_a_stream_may_end_without_a_blank_line(end):
    decoder = SseDecoder()

    assert fields(decoder.feed(b"data: a\n\ndata: [DONE]" + end)) == [SseEvent(b"a")]
    (last,) = decoder.finish()

    assert last.data == b"[DONE]"
    assert last.raw == b"data: [DONE]" + end


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * MAX_EVENT_BYTES],
        [b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n"],
        [b"x" * (MAX_EVENT_BYTES // 8)] * 9,
        [b"data: " + b"x" * (MAX_EVENT_BYTES // 8) + b"\n"] * 9,
    ],
)
def test_an_event_that_never_ends_is_an_error(pieces):
    decoder = SseDecoder()

    with pytest.raises(EventTooLarge, match="8388608 bytes"):
        for piece in pieces:
            decoder.feed(piece)


def test_a_large_event_in_small_pieces_takes_linear_time():
    def seconds(size):
        decoder, piece, started = SseDecoder(), b"x" * 64, time.process_time()
        decoder.feed(b"data: ")
        for _ in range(size // 64):
            decoder.feed(piece)
        assert len(decoder.feed(b"\n\n")) == 1
        return time.process_time() - started

    small = min(seconds(256 * 1024) for _ in range(3))

    assert min(seconds(4 * 1024 * 1024) for _ in range(3)) < 16 * small * 4 + 0.05


FIELDS = st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\0"))


@given(
    st.builds(
        SseEvent,
        data=st.none() | st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"")),
        event=FIELDS,
        id=st.none() | FIELDS,
        retry=st.none() | st.integers(0, 10**6),
        comment=st.none(),
        raw=st.just(b""),
    )
)
def test_what_is_encoded_is_decoded(event):
    assert fields(SseDecoder().feed(encode(event))) == [event]


def test_a_comment_is_encoded_on_lines_of_its_own():
    assert encode(SseEvent(comment=b"a\r\nb")) == b": a\n: b\n\n"
    assert encode(SseEvent(data=b"a\rb")) == b"data: a\ndata: b\n\n"
