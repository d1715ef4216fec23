"""DNS messages, recorded and made up."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.discovery.dns_message import (
    BadMessage,
    Reply,
    Service,
    encode_name,
    question,
    read_name,
    read_reply,
)

NAME = "_http._tcp.vllm.example"

# An answer with a CNAME before the records, compressed names, and additions, as BIND sends it.
ASKED = encode_name(NAME) + struct.pack("!HH", 33, 1)


def record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 30, len(data)) + data


def srv(priority: int, weight: int, port: int, target: bytes) -> bytes:
    return record(b"\xc0\x0c", 33, struct.pack("!HHH", priority, weight, port) + target)


def reply(*records: bytes, number: int = 7, flags: int = 0x8180, asked: bytes = ASKED) -> bytes:
    return struct.pack("!6H", number, flags, 1, len(records), 0, 0) + asked + b"".join(records)


def test_a_question_is_what_a_server_expects() -> None:
    assert question(0x1234, "_http._tcp.a.example.") == (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
        b"\x05_http\x04_tcp\x01a\x07example\x00\x00\x21\x00\x01"
        b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
    )


def test_reads_services_behind_an_alias_and_beside_additions() -> None:
    message = reply(
        record(b"\xc0\x0c", 5, encode_name("_http._tcp.other.example")),
        srv(10, 60, 8000, encode_name("a.vllm.example")),
        srv(20, 0, 8001, b"\x01b\xc0\x17"),
    )

    assert read_reply(message, 7, NAME) == Reply(
        0,
        False,
        (Service(10, 60, 8000, "a.vllm.example"), Service(20, 0, 8001, "b.vllm.example")),
    )


def test_the_name_may_come_back_in_another_case() -> None:
    asked = encode_name(NAME.upper()) + struct.pack("!HH", 33, 1)

    assert read_reply(reply(asked=asked), 7, NAME + ".") == Reply(0, False, ())


@pytest.mark.parametrize(("flags", "code"), [(0x8183, 3), (0x8182, 2), (0x8185, 5)])
def test_a_refusal_has_a_code(flags: int, code: int) -> None:
    assert read_reply(reply(flags=flags), 7, NAME).code == code


def test_a_cut_answer_is_not_looked_into() -> None:
    assert read_reply(reply(flags=0x8380) + b"\xff", 7, NAME) == Reply(0, True, ())


WHOLE = reply(srv(1, 2, 3, encode_name("a.example")))
BAD = {
    "another number": (reply(number=8)),
    "a question": reply(flags=0x0100),
    "another name": reply(asked=encode_name("_http._tcp.evil.example") + struct.pack("!HH", 33, 1)),
    "another type": reply(asked=encode_name(NAME) + struct.pack("!HH", 1, 1)),
    "two questions": struct.pack("!6H", 7, 0x8180, 2, 0, 0, 0) + ASKED * 2,
    "too many records": struct.pack("!6H", 7, 0x8180, 1, 65535, 0, 0) + ASKED,
    "a record longer than it says": reply(record(b"\xc0\x0c", 33, b"\0\1\0\1\0\1" + b"\x01a\0" + b"junk")),
    "a name with a dot inside": reply(srv(1, 1, 1, b"\x03a.b\0")),
    "a name in UTF-8": reply(srv(1, 1, 1, b"\x02\xc3\xa4\0")),
    "a pointer to itself": reply(srv(1, 1, 1, b"\xc0\x3e")),
    "a pointer forward": reply(srv(1, 1, 1, b"\xc0\xff")),
    "an unknown label": reply(srv(1, 1, 1, b"\x40a\0")),
    "an endless name": reply(srv(1, 1, 1, b"\x3f" + b"a" * 63 + b"\xc0\x0c")).replace(
        encode_name(NAME), b"".join(b"\x3f" + b"b" * 63 for _ in range(3)) + b"\0"
    ),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD.keys())
def test_what_does_not_add_up_is_refused(message: bytes) -> None:
    with pytest.raises(BadMessage):
        read_reply(message, 7, NAME)


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_a_message_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(BadMessage):
        read_reply(WHOLE[:length], 7, NAME)


@pytest.mark.parametrize("name", ["", ".", "a..b", "a" * 64, ".".join(["a" * 63] * 4), "bücher.example"])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(BadMessage):
        question(1, name)


def test_a_pointer_loop_over_two_names_is_refused() -> None:
    with pytest.raises(BadMessage):
        read_name(b"\x01a\xc0\x04\x01b\xc0\x00", 0)


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(noise: bytes) -> None:
    for message in (noise, WHOLE[:12] + noise, WHOLE[: 12 + len(ASKED)] + noise):
        with suppress(BadMessage):
            read_reply(message, 7, NAME)
