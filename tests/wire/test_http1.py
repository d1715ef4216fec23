"""Heads: what is read, what is refused, and that nothing is changed."""

import pytest

from proxy.errors import ProxyError
from proxy.wire.http1 import (
    MAX_HEADER_LINES,
    BadHead,
    Framing,
    parse_answer_head,
    parse_request_head,
)


def request(*lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1", host: bool = True) -> bytes:
    head = [start, *([b"Host: a.example"] if host else []), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n"


def answer(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *lines]) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/a%2fb",
        b"/%41",
        b"/a/../b",
        b"//x",
        b"/x?",
        b"/x?a=b+c&d=%zz",
        b"/a|b",
        b"/caf\xe9",
        b"/\xff",
        b"/'\"<>",
    ],
)
def test_a_target_is_kept_as_it_came(target):
    assert parse_request_head(request(start=b"GET " + target + b" HTTP/1.1")).target == target


def test_lines_keep_their_bytes_order_and_repeats():
    lines = [b"X-B:  two  ", b"x-a:one", b"X-B: \xff\xfe", b"Empty:"]

    head = parse_request_head(request(*lines))

    assert [line.raw for line in head.lines] == [b"Host: a.example", *lines]
    assert [line.value for line in head.lines] == [b"a.example", b"two", b"one", b"\xff\xfe", b""]


@pytest.mark.parametrize("method", [b"GET", b"QUERY", b"M-SEARCH", b"x!#$%&'*+-.^_`|~9"])
def test_any_token_is_a_method(method):
    assert parse_request_head(request(start=method + b" / HTTP/1.1")).method == method


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET /", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / HTTP/11", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET /#x HTTP/1.1", 400),
        (b"GET x HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"CONNECT a:1 HTTP/1.1", 405),
        (b"GE(T / HTTP/1.1", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1", 414),
    ],
)
def test_a_bad_request_line_is_refused(start, status):
    with pytest.raises(ProxyError) as caught:
        parse_request_head(request(start=start))

    assert caught.value.status == status


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 1", b"Content-Length: 1"],
        [b"Content-Length: 1, 1"],
        [b"Content-Length: +1"],
        [b"Content-Length: 0x1"],
        [b"Content-Length: 1_0"],
        [b"Content-Length: 01"],
        [b"Content-Length:"],
        [b"Content-Length: \xb2"],
        [b"Content-Length: 1234567890123456789"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked;x"],
        [b"Transfer-Encoding:"],
        [b"Content-Length : 1"],
        [b" X: folded"],
        [b"X: a", b"\tfolded"],
        [b": empty name"],
        [b"no colon"],
        [b"X: a\x00b"],
        [b"X: a\x7fb"],
        [b"X: a\x0bb"],
        [b"X: a\rb"],
        [b"X: a\nb"],
        [b"X(y): a"],
        [b"X\xe9: a"],
        [b"Host: b.example"],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(lines):
    with pytest.raises(ProxyError) as caught:
        parse_request_head(request(*lines))

    assert caught.value.status == 400


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a, b", b"", b"a@b", b"a:b", b"a:123456", b"[::1", b"[g]"])
def test_a_malformed_host_is_refused(host):
    with pytest.raises(ProxyError):
        parse_request_head(request(b"Host: " + host, host=False))


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"127.0.0.1:8000", b"[::1]:8000", b"A_b.c"])
def test_a_usual_host_is_taken(host):
    assert parse_request_head(request(b"Host: " + host, host=False)).get(b"host") == host


def test_http_1_1_needs_a_host_and_http_1_0_does_not():
    with pytest.raises(ProxyError):
        parse_request_head(request(host=False))

    assert parse_request_head(request(start=b"GET / HTTP/1.0", host=False)).minor == 0


def test_absolute_form_must_name_the_host_of_the_host_header():
    good = parse_request_head(request(start=b"GET http://A.example/x?y HTTP/1.1"))
    bare = parse_request_head(request(start=b"GET http://a.example?y HTTP/1.1"))

    assert (good.target, bare.target) == (b"/x?y", b"/?y")
    for target in (b"http://b.example/x", b"ftp://a.example/", b"http://u@a.example/", b"http:///x"):
        with pytest.raises(ProxyError):
            parse_request_head(request(start=b"GET " + target + b" HTTP/1.1"))


@pytest.mark.parametrize(
    ("start", "connection", "expected"),
    [
        (b"GET / HTTP/1.1", None, True),
        (b"GET / HTTP/1.1", b"close", False),
        (b"GET / HTTP/1.1", b"x, Close", False),
        (b"GET / HTTP/1.0", None, False),
        (b"GET / HTTP/1.0", b"Keep-Alive", True),
        (b"GET / HTTP/1.0", b"keep-alive, close", False),
    ],
)
def test_keep_alive_follows_version_and_connection(start, connection, expected):
    lines = [b"Connection: " + connection] if connection else []

    assert parse_request_head(request(*lines, start=start)).keep_alive is expected


def test_expect_is_known_or_refused():
    assert parse_request_head(request(b"Expect: 100-Continue")).expects_continue
    assert not parse_request_head(request(b"Expect: 100-continue", start=b"PUT / HTTP/1.0")).expects_continue
    with pytest.raises(ProxyError) as caught:
        parse_request_head(request(b"Expect: a-miracle"))
    assert caught.value.status == 417


def test_too_many_lines_are_refused():
    with pytest.raises(ProxyError) as caught:
        parse_request_head(request(*[b"X: y"] * MAX_HEADER_LINES))

    assert caught.value.status == 431


def test_an_answer_is_framed_by_what_its_head_says():
    cases = [
        (answer(b"Content-Length: 5"), b"POST", Framing.LENGTH),
        (answer(b"Transfer-Encoding: Chunked"), b"POST", Framing.CHUNKED),
        (answer(), b"POST", Framing.CLOSE),
        (answer(b"Content-Length: 5"), b"HEAD", Framing.NONE),
        (answer(b"Content-Length: 5", start=b"HTTP/1.1 304 Not Modified"), b"GET", Framing.NONE),
        (answer(start=b"HTTP/1.1 204 No Content"), b"GET", Framing.NONE),
        (answer(start=b"HTTP/1.0 200 OK"), b"GET", Framing.CLOSE),
    ]

    for head, method, framing in cases:
        assert parse_answer_head(head, method=method).framing is framing


def test_a_reason_is_kept_and_may_be_missing():
    assert (
        parse_answer_head(answer(start=b"HTTP/1.1 200 Tr\xe8s bien"), method=b"GET").reason == b"Tr\xe8s bien"
    )
    assert parse_answer_head(answer(start=b"HTTP/1.1 200 "), method=b"GET").reason == b""
    assert parse_answer_head(answer(start=b"HTTP/1.1 200"), method=b"GET").reason == b""


@pytest.mark.parametrize(
    "head",
    [
        answer(b"Content-Length: 5", b"Content-Length: 5"),
        answer(b"Content-Length: 5, 5"),
        answer(b"Content-Length: -1"),
        answer(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        answer(b"Transfer-Encoding: gzip"),
        answer(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK"),
        answer(b"X : y"),
        answer(b"X: y", b" folded"),
        answer(b"X: \x00"),
        answer(b"X: a\nY: b"),
        answer(start=b"HTTP/2 200 OK"),
        answer(start=b"HTTP/1.1 20 OK"),
        answer(start=b"HTTP/1.1 600 OK"),
        answer(start=b"HTTP/1.1  200 OK"),
        answer(start=b"ICY 200 OK"),
    ],
)
def test_a_malformed_answer_is_refused(head):
    with pytest.raises(BadHead):
        parse_answer_head(head, method=b"POST")
