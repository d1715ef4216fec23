"""The chunked coding: the same verdict however the bytes are cut, and no early end."""

from itertools import accumulate, combinations_with_replacement, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.chunked import MAX_SIZE_LINE_BYTES, MAX_TRAILER_BYTES, ChunkScanner
from proxy.wire.http1 import BadHead

MESSAGE = b'5\r\nhello\r\n1;ext="v"\r\n!\r\n0\r\nX-Sum: 1\r\nY: z\r\n\r\n'


def run(pieces):
    scanner, passed, payload = ChunkScanner(), b"", b""
    for piece in pieces:
        passed += scanner.feed(piece)
        payload += scanner.payload
    return scanner, passed, payload


def test_every_cut_passes_the_same_bytes():
    for first, second in combinations_with_replacement(range(len(MESSAGE) + 1), 2):
        pieces = [piece for piece in (MESSAGE[:first], MESSAGE[first:second], MESSAGE[second:]) if piece]

        scanner, passed, payload = run(pieces)

        assert (scanner.done, passed, payload, scanner.rest) == (True, MESSAGE, b"hello!", b"")


def test_byte_by_byte_is_the_same():
    scanner, passed, payload = run([MESSAGE[i : i + 1] for i in range(len(MESSAGE))])

    assert (scanner.done, passed, payload) == (True, MESSAGE, b"hello!")


SIZE_LINE = st.sampled_from([b"%x\r\n", b"%X\r\n", b"00%x\r\n", b"%x;e=1\r\n", b"0000%x\r\n"])
CHUNK = st.tuples(
    SIZE_LINE, st.binary(min_size=1, max_size=300) | st.sampled_from([b"\r\n", b"5\r\nhello\r\n"])
)


@given(st.lists(CHUNK, max_size=8), st.lists(st.integers(0, 2000), max_size=4))
def test_a_piece_that_is_one_whole_chunk_says_what_its_bytes_say_one_by_one(chunks, cuts):
    framed = [line % len(payload) + payload + b"\r\n" for line, payload in chunks]
    message = b"".join(framed) + b"0\r\n\r\n"
    whole = {0, len(message), *accumulate(map(len, framed))}  # most pieces are one chunk each
    edges = sorted(whole | {cut % len(message) for cut in cuts})

    scanner, passed, payload = run([message[start:end] for start, end in pairwise(edges)])

    assert (scanner.done, passed, payload) == (True, message, b"".join(payload for _, payload in chunks))
    assert run([bytes([byte]) for byte in message])[1:] == (passed, payload)


@given(st.binary(max_size=12), st.sampled_from([b"5\r\n", b"05\r\n", b"5\r", b"5", b"0\r\n", b"50\r\n", b""]))
def test_a_piece_that_is_no_chunk_gets_the_verdict_of_its_bytes_one_by_one(payload, line):
    piece = line + payload + b"\r\n"

    assert verdict([piece]) == verdict([bytes([byte]) for byte in piece])


def verdict(pieces):
    try:
        scanner, passed, payload = run(pieces)
    except BadHead as error:
        return str(error)
    return scanner.done, passed, payload


def test_nothing_of_the_last_chunk_is_passed_before_it_is_whole():
    last = MESSAGE.index(b"0\r\nX-Sum")
    for cut in range(last, len(MESSAGE)):
        _, passed, _ = run([MESSAGE[:cut]])

        assert passed == MESSAGE[:last]


@given(st.binary(min_size=1, max_size=40))
def test_what_comes_behind_the_message_is_the_rest(extra):
    scanner, passed, _ = run([MESSAGE + extra])

    assert (passed, scanner.rest) == (MESSAGE, extra)


@pytest.mark.parametrize(
    "bad",
    [
        b"g\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5_0\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\rhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\rX",
        b"5;\x00\r\nhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"1234567890abcdef0\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nX y: z\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX: a\x00\r\n\r\n",
        b"1" * (MAX_SIZE_LINE_BYTES + 1),
        b"0\r\nX: " + b"a" * MAX_TRAILER_BYTES + b"\r\n",
        b"0\r\nX: " + b"a" * MAX_TRAILER_BYTES + b"\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_a_malformed_coding_is_refused_at_any_cut(bad, size):
    with pytest.raises(BadHead):
        run([bad[i : i + size] for i in range(0, len(bad), size)])


def test_what_was_in_order_before_the_fault_may_be_passed():
    scanner = ChunkScanner()

    with pytest.raises(BadHead):
        scanner.feed(b"5\r\nhello\r\nzz\r\n")

    assert (scanner.passable, scanner.payload) == (b"5\r\nhello\r\n", b"hello")
