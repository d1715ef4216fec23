"""Clients that differ in their key alone share what is read of their heads, and nothing of their keys."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.wire.common_heads import CommonHeads
from proxy.wire.head_memory import MAX_HEAD_BYTES, HeadMemory
from proxy.wire.headers import RequestRewrite
from proxy.wire.http1 import RequestHead, parse_request_head

NAMES = (b"authorization", b"x-api-key")
REWRITE = RequestRewrite(host=b"up", replaced=NAMES, added=[(b"Authorization", b"Bearer ours")])
PASSING = RequestRewrite(host=b"up")


def request(*lines: bytes, target: bytes = b"/v1/x") -> bytes:
    return b"\r\n".join([b"POST %b HTTP/1.1" % target, b"Host: h", *lines, b"Content-Length: 2", b"", b""])


def twice(heads: CommonHeads, *raws: bytes) -> list[RequestHead]:
    """What is read when everything comes for the second time."""
    for raw in raws:
        heads.read(raw)
    return [heads.read(raw) for raw in raws]


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer %b",
        b"authorization: bearer %b",
        b"AUTHORIZATION: BEARER %b",
        b"X-API-Key: %b",
        b"x-api-key: %b",
    ],
)
def test_heads_that_differ_in_their_key_have_all_but_its_line_in_common(line: bytes) -> None:
    one, other = twice(CommonHeads(NAMES), *(request(b"A: b", line % key) for key in (b"sk-1", b"sk-2")))

    assert one.common is not None and one.common.memo is not None
    assert other.common is not None and other.common.memo is one.common.memo
    assert [head.lines[2].raw for head in (one, other)] == [line % b"sk-1", line % b"sk-2"]
    assert one.memo is not other.memo
    assert not any(b"sk-" in part.raw + part.value for part in one.common.lines)


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer  sk-1",
        b"Authorization:Bearer sk-1",
        b"Authorization: Bearer sk-1 ",
        b"Authorization: Bearer sk-1 sk-2",
        b"Authorization: Bearer \xff",
        b"Authorization: Basic c2stMTo=",
        b"Authorization: sk-1",
        b"Authorization: Bearer ",
        b"X-API-Key: ",
        b"X-Other: sk-1",
        b"X-Other: Authorization: Bearer sk-1",
        b"Proxy-Authorization: Bearer sk-1",
    ],
)
def test_a_head_without_a_plain_key_has_nothing_in_common(line: bytes) -> None:
    raw = request(line)
    (head,) = twice(CommonHeads(NAMES), raw)

    assert head.common is None and head == parse_request_head(raw)


@pytest.mark.parametrize("name", [b"host", b"content-length", b"connection", b"transfer-encoding", b"expect"])
def test_a_line_that_says_how_to_read_the_head_is_never_cut(name: bytes) -> None:
    raw = request(b"Connection: close", b"Expect: 100-continue")
    (head,) = twice(CommonHeads([name]), raw)

    assert head.common is None and head == parse_request_head(raw)


def test_where_no_header_holds_a_key_every_head_is_its_own() -> None:
    (head,) = twice(CommonHeads([]), request(b"Authorization: Bearer sk-1"))

    assert head.common is None


def test_the_first_plain_key_is_cut_and_another_one_has_to_be_the_same() -> None:
    raws = [
        request(b"X-API-Key: %b" % first, b"Authorization: Bearer %b" % second)
        for first, second in ((b"sk-1", b"sk-2"), (b"sk-3", b"sk-2"), (b"sk-1", b"sk-3"))
    ]
    one, two, three = (head.common for head in twice(CommonHeads(NAMES), *raws))

    assert one is not None and two is not None and three is not None
    assert one.memo is two.memo
    assert one.memo is not three.memo


def test_a_changed_head_has_nothing_in_common_any_more() -> None:
    (head,) = twice(CommonHeads(NAMES), request(b"Accept-Encoding: gzip", b"Authorization: Bearer sk-1"))
    REWRITE.head(head, body_length=2)
    changed = replace(head, lines=[line for line in head.lines if line.lower != b"accept-encoding"])

    assert b"gzip" in REWRITE.head(head, body_length=2)
    assert b"gzip" not in REWRITE.head(changed, body_length=2)


def test_a_key_that_the_upstream_is_to_see_is_each_clients_own() -> None:
    for key in (b"sk-1", b"sk-2", b"sk-1"):
        (head,) = twice(CommonHeads(NAMES), request(b"X-API-Key: " + key))
        assert b"X-API-Key: %b\r\n" % key in PASSING.head(head, body_length=2)


def test_large_heads_are_read_alike() -> None:
    raw = request(b"Cookie: " + b"x" * MAX_HEAD_BYTES, b"X-API-Key: sk-1")
    (head,) = twice(CommonHeads(NAMES), raw)

    assert head == parse_request_head(raw)


# -- whatever comes, it is what the plain parser reads --------------------------------

PLAIN = [b"Authorization: Bearer %b", b"authorization: bearer %b", b"X-API-Key: %b", b"x-api-key: %b"]
ODD = [
    b"Authorization:  Bearer %b",
    b"Authorization: Bearer %b ",
    b"Authorization: Bearer %b,%b",
    b"Authorization : Bearer %b",
    b"Authorization: Bearer %b\r",
    b"Authorization: Bearer %b\nX-API-Key: %b",
    b"Authorization: Bearer %b\r\n folded",
    b"\tAuthorization: Bearer %b",
    b"Authorization: Bearer %b\0",
    b"Authorization: Basic %b",
    b"Authorization: Bearer",
    b"Authorization: Bearer ",
    b"X-API-Key:",
    b"X-API-Key: ",
    b"X-API-Key: %b %b",
    b"Proxy-Authorization: Bearer %b",
    b"X: Authorization: Bearer %b",
    b"Connection: Authorization, x-api-key",
    b"Connection: close",
    b"Content-Length: 2",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Cookie: key=%b",
]
KEYS = [b"sk-1", b"sk-2", b"s", b"\xff", b"", b"sk-%20", b"Bearer", b"ength: 3"]
LINE = st.builds(
    lambda line, key: line.replace(b"%b", key),
    st.one_of(st.sampled_from(PLAIN), st.sampled_from(ODD)),
    st.sampled_from(KEYS),
)
TARGET = st.sampled_from([b"/v1/x", b"/v1/sk-1", b"http://h/v1/x", b"http://other/"])
RAW = st.builds(lambda lines, target: request(*lines, target=target), st.lists(LINE, max_size=3), TARGET)


@given(st.lists(RAW, min_size=1, max_size=12), st.integers(1, 3))
def test_sharing_changes_nothing(raws: list[bytes], times: int) -> None:
    heads = HeadMemory(CommonHeads(NAMES).read, 2000)
    for raw in raws * times:
        assert outcome(heads.read, raw) == outcome(parse_request_head, raw)


def outcome(read: object, raw: bytes) -> object:
    """All that can be learned from a head, asked for in two orders."""
    assert callable(read)
    try:
        head = read(raw)
    except ProxyError as error:
        return type(error), str(error)
    names = sorted({line.lower for line in head.lines})
    asked = [head.get(name) for name in (*names, b"absent")]
    return head, asked, [rewrite.head(head, body_length=7) for rewrite in (REWRITE, PASSING)]
