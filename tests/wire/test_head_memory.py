"""What is remembered must be exactly what would have been read."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest, ProxyError
from proxy.wire.head_memory import MAX_HEAD_BYTES, MAX_SEEN, H, HeadMemory
from proxy.wire.http1 import AnswerHead, Framing, RequestHead, parse_answer_head, parse_request_head

GENEROUS = 1024 * 1024


def request(*lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: h", *lines, b"", b""])


def memory(max_bytes: int = GENEROUS) -> HeadMemory[RequestHead]:
    return HeadMemory(parse_request_head, max_bytes)


def known(heads: HeadMemory[H], raw: bytes) -> H:
    """A head that comes for the second time."""
    heads.read(raw)
    return heads.read(raw)


def test_the_same_bytes_are_the_same_head() -> None:
    heads = memory()

    first = known(heads, request(b"Content-Length: 5"))

    assert heads.read(request(b"Content-Length: 5")) is first


def test_what_comes_once_is_not_kept() -> None:
    heads = memory(max_bytes=1000)
    often = known(heads, request(b"X: often"))

    for number in range(MAX_SEEN + 1000):
        heads.read(request(b"X: %d" % number))

    assert heads.read(request(b"X: often")) is often


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content-length"])
def test_another_length_is_filled_in(name: bytes) -> None:
    heads = memory()
    first = known(heads, request(name + b": 5", b"X: y"))

    second = heads.read(request(name + b": 1234", b"X: y"))

    assert (first.content_length, second.content_length) == (5, 1234)
    assert (second.method, second.target, second.minor) == (first.method, first.target, first.minor)
    assert second.memo is first.memo or name == b"CONTENT-LENGTH"


@pytest.mark.parametrize(
    "length", [b"", b" 7", b"7 ", b"07", b"+7", b"-7", b"7,7", b"0x7", b"1" * 19, b"\xb2", b"7\t"]
)
def test_an_odd_length_is_read_and_judged_anew(length: bytes) -> None:
    heads = memory()
    known(heads, request(b"Content-Length: 5"))
    raw = request(b"Content-Length: " + length)

    assert outcome(heads.read, raw) == outcome(parse_request_head, raw)


def test_a_length_in_another_header_is_part_of_the_head() -> None:
    heads = memory()
    for strength in (b"5", b"6"):
        raw = request(b"X-Strength: " + strength, b"Content-Length: 2")

        head = known(heads, raw)

        assert head.get(b"x-strength") == strength
        assert head.content_length == 2


def test_a_refused_head_is_refused_every_time() -> None:
    heads = memory()
    for _ in range(3):
        with pytest.raises(BadRequest):
            heads.read(request(b"Content-Length: 5", b"Content-Length: 5"))


def test_what_nobody_asks_for_is_forgotten() -> None:
    heads = memory(max_bytes=1000)
    rare = known(heads, request(b"X: rare"))
    often = known(heads, request(b"X: often"))

    for number in range(200):
        known(heads, request(b"X: %d" % number))
        assert heads.read(request(b"X: often")) is often

    assert heads.read(request(b"X: rare")) is not rare


def test_a_large_head_is_read_each_time() -> None:
    heads = memory()
    raw = request(b"Cookie: " + b"x" * MAX_HEAD_BYTES)

    assert known(heads, raw) is not heads.read(raw)


def test_answers_are_remembered_too() -> None:
    heads: HeadMemory[AnswerHead] = HeadMemory(partial(parse_answer_head, method=b"POST"), GENEROUS)
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    known(heads, raw % 5)

    head = heads.read(raw % 60)

    assert (head.status, head.framing, head.length) == (200, Framing.LENGTH, 60)


LINES = st.sampled_from(
    [
        b"Content-Length: %d",
        b"content-length: %d",
        b"Content-Length:%d",
        b"X-Length: %d",
        b"X: %d",
        b"Range: x",
    ]
)
RAW = st.builds(
    lambda lines, numbers: request(
        *(line.replace(b"%d", b"%d" % n) for line, n in zip(lines, numbers, strict=True))
    ),
    st.lists(LINES, min_size=3, max_size=3),
    st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 300)),
)


@given(st.lists(RAW, max_size=30))
def test_memory_changes_nothing(raws: list[bytes]) -> None:
    heads = memory(max_bytes=400)

    assert [outcome(heads.read, raw) for raw in raws] == [outcome(parse_request_head, raw) for raw in raws]


def outcome(read: object, raw: bytes) -> object:
    """What a reader makes of it: all but the lines, which may hold an earlier length."""
    assert callable(read)
    try:
        head = read(raw)
    except ProxyError as error:
        return type(error), str(error)
    lines = [line.raw for line in head.lines if line.lower != b"content-length"]
    return head.method, head.target, head.path, head.content_length, head.chunked, head.keep_alive, lines
