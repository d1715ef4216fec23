"""Bytes are not ours: what a client sends arrives, and what an upstream answers comes back."""

import asyncio
import gzip
import os
from itertools import pairwise

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.upstream import replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

# These end at each connection (RFC 9110, 7.6.1); Host is the upstream's.
HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
    b"host",
}

# The one header of ours that an answer from an upstream may carry.
OURS = {b"x-request-id"}


def end_to_end(head):
    return [(name, value) for name, value in head.fields if name.lower() not in HOP]


def not_ours(head):
    return [(name, value) for name, value in end_to_end(head) if name.lower() not in OURS]


# --- requests ----------------------------------------------------------------

TARGETS = [
    b"/v1/x",
    b"/v1/",
    b"/v1/x%2fy",
    b"/v1/x%2Fy",
    b"/v1/%41%7e",
    b"/v1/a/../b",
    b"/v1/a/./b",
    b"/v1/../v1/x",
    b"/v1//x",
    b"/v1/x//",
    b"/v1/x?",
    b"/v1/x??",
    b"/v1/x?a=b?c=d",
    b"/v1/x?a=1&a=2&&b",
    b"/v1/x?q=a+b%20c",
    b"/v1/x?q=%zz",
    b"/v1/%",
    b"/v1/%00",
    b"/v1/x|y",
    b"/v1/x?a|b^c`d",
    b'/v1/"quoted"',
    b"/v1/<tag>",
    b"/v1/back\\slash",
    b"/v1/{brace}[bracket]",
    b"/v1/semi;colon=1,comma",
    b"/v1/caf\xc3\xa9",
    b"/v1/caf\xe9",
    b"/v1/\xff\xfe?\x80",
    b"/v1/x:y@z",
    b"/v1/http://other/x",
    b"/v1/x?url=http://other/x?y",
    b"/v1/~user/*'()!$&",
    b"/v1/" + b"long/" * 800,
]


@pytest.mark.parametrize("target", TARGETS)
async def test_the_target_arrives_as_it_was_sent(port, upstream, target):
    response = await ask(port, get(target))

    assert response.status == 200
    assert upstream.requests[0].target == target


METHODS = [
    b"GET",
    b"POST",
    b"PUT",
    b"PATCH",
    b"DELETE",
    b"OPTIONS",
    b"REPORT",
    b"PROPFIND",
    b"M-SEARCH",
    b"get",
    b"Post",
    b"X",
    b"!#$%&'*+-.^_`|~09",
]


@pytest.mark.parametrize("method", METHODS)
async def test_any_method_token_arrives(port, upstream, method):
    request = lines(method + b" /v1/x HTTP/1.1", "Host: h", "Content-Length: 4") + b"body"

    response = await ask(port, request)

    assert response.status == 200
    assert (upstream.requests[0].method, upstream.requests[0].body) == (method, b"body")


REQUEST_HEADERS = {
    "case": [b"x-lower: a", b"X-UPPER: b", b"X-mIxEd: c"],
    "order": [b"B: 1", b"A: 2", b"C: 3", b"A: 4"],
    "repeats": [b"X-Twice: 1", b"X-Other: 2", b"X-Twice: 1", b"x-twice: 3"],
    "empty value": [b"X-Empty:", b"X-Spaces:   "],
    "inner white space": [b"X-Inner: a  b\tc"],
    "latin-1": [b"X-Latin: caf\xe9"],
    "utf-8": [b"X-Utf: caf\xc3\xa9 \xf0\x9f\x98\x80"],
    "every high byte": [b"X-High: " + bytes(range(0x80, 0x100))],
    "every printable byte": [b"X-Print: " + bytes(range(0x21, 0x7F))],
    "token characters": [b"!#$%&'*+-.^_`|~09az: odd name"],
    "underscore": [b"x_under_score: 1", b"x-under-score: 2"],
    "commas and quotes": [b'X-List: a, "b, c" ,d', b"X-Semi: a;b=c"],
    "cookies": [b"Cookie: a=1; b=2", b"Cookie: c=3"],
    "agent and accept": [b"User-Agent: probe/1", b"Accept: */*", b"Accept-Encoding: gzip, br;q=0.1"],
    "forwarded": [b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=10.0.0.2", b"Via: 1.1 before"],
    "trace": [b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"tracestate: a=b"],
    "its own request id": [b"X-Request-Id: 2f8e6a3c-1111-4222-8333-444455556666"],
    "opencode": [b"x-session-affinity: s1", b"x-session-id: s1", b"x-parent-session-id: s0"],
    "conditional": [b'If-None-Match: "x"', b"Range: bytes=0-4", b"Cache-Control: no-cache"],
    "long value": [b"X-Long: " + b"v" * 7000],
    "many lines": [b"X-Many-%d: %d" % (number, number) for number in range(100)],
    "same name many times": [b"X-Same: %d" % number for number in range(90)],
}


@pytest.mark.parametrize("sent", REQUEST_HEADERS.values(), ids=REQUEST_HEADERS)
async def test_request_headers_arrive_in_order_case_and_number(port, upstream, sent):
    response = await ask(port, get(b"/v1/x", *sent))

    assert response.status == 200
    expected = [tuple(part.strip(b" \t") for part in line.split(b":", 1)) for line in sent]
    assert end_to_end(upstream.requests[0].head) == expected


async def test_the_body_headers_keep_their_place(port, upstream):
    await ask(port, post(b"/v1/x", b"{}", b"X-After: 1"))

    names = [name for name, _ in end_to_end(upstream.requests[0].head)]
    assert names == [b"Content-Type", b"Content-Length", b"X-After"]


HOP_LINES = [
    [b"Connection: keep-alive"],
    [b"Connection: close"],
    [b"Keep-Alive: timeout=5"],
    [b"Proxy-Connection: keep-alive"],
    [b"Proxy-Authorization: Basic eDp5"],
    [b"TE: trailers"],
    [b"Upgrade: websocket", b"Connection: upgrade"],
    [b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Connection: Upgrade, HTTP2-Settings"],
    [b"Connection: X-Hop", b"X-Hop: 1"],
    [b"Connection: close, x-hop , X-Other-Hop", b"X-Hop: 1", b"x-other-hop: 2"],
    [b"Connection: x-hop", b"Connection: x-more", b"X-Hop: 1", b"X-More: 2"],
]


@pytest.mark.parametrize("sent", HOP_LINES)
async def test_hop_by_hop_headers_end_here(port, upstream, sent):
    response = await ask(port, get(b"/v1/x", *sent, b"X-Stays: 1"))

    assert response.status == 200
    assert end_to_end(upstream.requests[0].head) == [(b"X-Stays", b"1")]
    named = {line.split(b":")[0].lower() for line in sent} - {b"connection"}
    assert not named & set(upstream.requests[0].head.names())


@pytest.mark.parametrize("named", [b"host", b"content-length", b"content-type", b"close, content-length"])
async def test_the_connection_header_cannot_take_away_what_frames_the_request(port, upstream, named):
    response = await ask(port, post(b"/v1/x", b"0123456789", b"Connection: " + named))

    if response.status == 200:
        assert upstream.requests[0].body == b"0123456789"
    else:
        assert response.status == 400
        assert upstream.requests == []


async def test_nothing_is_invented_in_a_request(port, upstream):
    await ask(port, get(b"/v1/x"))
    await ask(port, lines("POST /v1/x HTTP/1.1", "Host: h", "Content-Length: 2") + b"{}")
    await ask(port, lines("DELETE /v1/x HTTP/1.1", "Host: h"))

    sent = [set(request.head.names()) for request in upstream.requests]
    assert sent == [{b"host"}, {b"host", b"content-length"}, {b"host"}]


async def test_the_upstream_gets_its_own_host(port, upstream, backend_port):
    await ask(port, get(b"/v1/x", host=b"public.example"))

    assert upstream.requests[0].head.get(b"host") == b"127.0.0.1:%d" % backend_port


BODIES = {
    "one byte": b"x",
    "every byte": bytes(range(256)),
    "json with a byte order mark": b"\xef\xbb\xbf{}",
    "json with odd spacing and doubled keys": b'{ "a" :1,\n"a": 2 ,"b":1.0e+2 }',
    "escapes": b'{"a":"\\u00e9\\ud83d\\ude00\\/"}',
    "not utf-8": b'{"a":"\xff\xfe"}',
    "looks like chunks": b"5\r\nhello\r\n0\r\n\r\n",
    "looks like a request": b"GET /v1/evil HTTP/1.1\r\nHost: h\r\n\r\n",
    "nul": b"\0" * 1000,
    "100 kB": b"0123456789" * 10_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_the_body_arrives_as_it_was_sent(port, upstream, body):
    response = await ask(port, post(b"/v1/x", body))

    assert response.status == 200
    assert upstream.requests[0].body == body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_chunked_body_arrives_whole(port, upstream, body):
    pieces = [body[start : start + 1 + len(body) // 7] for start in range(0, len(body), 1 + len(body) // 7)]
    head = lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")

    response = await ask(port, head + chunked(*pieces))

    assert response.status == 200
    assert upstream.requests[0].body == body


async def test_an_empty_chunked_body_is_a_request_without_a_body(port, upstream):
    head = lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")

    response = await ask(port, head + chunked())

    assert (response.status, upstream.requests[0].body) == (200, b"")


async def test_request_trailers_do_not_break_the_request(port, upstream):
    head = lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", "Trailer: X-Sum")

    response = await ask(port, head + chunked(b"abc", b"def", trailers=b"X-Sum: 6\r\n"))

    assert (response.status, upstream.requests[0].body) == (200, b"abcdef")


CODED = {
    "gzip": (b"gzip", gzip.compress(b'{"model":"m"}' * 9)),
    "claims gzip": (b"gzip", b'{"model":"m"}'),
    "cut gzip": (b"gzip", gzip.compress(b'{"model":"m"}' * 9)[:20]),
    "claims br": (b"br", b'{"model":"m"}'),
    "claims zstd": (b"zstd", b'{"model":"m"}'),
    "claims deflate": (b"deflate", b'{"model":"m"}'),
    "unknown": (b"x-made-up", b'{"model":"m"}'),
    "identity": (b"identity", b'{"model":"m"}'),
    "several": (b"gzip, br", b'{"model":"m"}'),
}


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
async def test_a_content_coding_is_not_touched_in_a_request(port, upstream, coding, body):
    response = await ask(port, post(b"/v1/x", body, b"Content-Encoding: " + coding))

    assert response.status == 200
    assert upstream.requests[0].body == body
    assert upstream.requests[0].head.get(b"content-encoding") == coding


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_content_coding_is_not_touched_in_an_answer(port, upstream, coding, body, framing):
    extra = b"Content-Encoding: " + coding
    raw = answer(body, extra) if framing == "length" else sse_head(extra) + chunked(body)
    upstream.on_request = replies(raw)

    response = await ask(port, post())

    assert (response.body, response.get(b"content-encoding")) == (body, coding)
    assert response.is_complete


@pytest.mark.parametrize(
    ("version", "extra"),
    [(b"1.0", []), (b"1.0", [b"Host: h"]), (b"1.0", [b"Host: h", b"Connection: keep-alive"])],
)
async def test_an_old_client_gets_an_answer_it_can_read(port, upstream, version, extra):
    upstream.on_request = replies(sse_head() + chunked(b"one", b"two"))

    async with await RawClient.connect(port) as client:
        response = await client.ask(lines(b"GET /v1/x HTTP/" + version, *extra))
        assert response.framing in ("close", "length")
        assert response.body == b"onetwo"
        assert response.is_complete
        assert await client.wait_end() == "fin"

    assert upstream.requests[0].head.start == b"GET /v1/x HTTP/1.1"


# --- answers -----------------------------------------------------------------

ANSWER_HEADERS = {
    "case": [b"x-lower: a", b"X-UPPER: b", b"X-mIxEd: c"],
    "order and repeats": [b"B: 1", b"A: 2", b"B: 3", b"b: 4"],
    "cookies": [b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2, c", b"set-cookie: a=1; Path=/"],
    "empty value": [b"Access-Control-Allow-Origin: ", b"X-Empty:"],
    "latin-1": [b"X-Latin: caf\xe9"],
    "utf-8": [b"X-Utf: \xe6\x97\xa5\xe6\x9c\xac"],
    "every high byte": [b"X-High: " + bytes(range(0x80, 0x100))],
    "inner white space": [b"X-Inner: a  b\tc"],
    "date and server": [b"Date: Thu, 01 Jan 1970 00:00:00 GMT", b"Server: vLLM"],
    "its own request id": [b"X-Request-Id: upstream-says"],
    "location": [b"Location: http://elsewhere.example/%2f?"],
    "odd content type": [b"Content-Language: x", b"X-Accel-Buffering: no"],
    "rate limits": [b"x-ratelimit-remaining-requests: 5", b"Retry-After: 7"],
    "long value": [b"X-Long: " + b"v" * 7000],
    "many lines": [b"X-Many-%d: %d" % (number, number) for number in range(100)],
    "www-authenticate": [b'WWW-Authenticate: Bearer realm="x"'],
    "tgi": [b"x-compute-time: 0.5", b"x-total-time: 0.7"],
}


@pytest.mark.parametrize("sent", ANSWER_HEADERS.values(), ids=ANSWER_HEADERS)
async def test_answer_headers_come_back_in_order_case_and_number(port, upstream, sent):
    upstream.on_request = replies(lines("HTTP/1.1 200 OK", "Content-Length: 2", *sent) + b"hi")

    response = await ask(port, get())

    expected = [(b"Content-Length", b"2")]
    expected += [tuple(part.strip(b" \t") for part in line.split(b":", 1)) for line in sent]
    own = b"X-Request-Id: upstream-says" in sent
    assert (end_to_end(response.head) if own else not_ours(response.head)) == expected


async def test_nothing_is_invented_in_an_answer(port, upstream):
    upstream.on_request = replies(lines("HTTP/1.1 200 OK", "Content-Length: 2") + b"hi")

    response = await ask(port, get())

    assert set(response.head.names()) - OURS == {b"content-length"}


STATUS_LINES = [
    (200, b"OK"),
    (200, b"Fine"),
    (200, b""),
    (200, b"caf\xe9 \xc3\xa9"),
    (200, b"several words\tand a tab"),
    (201, b"Created"),
    (206, b"Partial Content"),
    (299, b"Custom"),
    (300, b"Multiple Choices"),
    (301, b"Moved Permanently"),
    (302, b"Found"),
    (307, b"Temporary Redirect"),
    (400, b"Bad Request"),
    (401, b"Unauthorized"),
    (403, b"Forbidden"),
    (404, b"Not Found"),
    (405, b"Method Not Allowed"),
    (409, b"Conflict"),
    (413, b"Too Large"),
    (418, b"I'm a teapot"),
    (422, b"Unprocessable Entity"),
    (424, b"Failed Dependency"),
    (429, b"Too Many Requests"),
    (499, b"Odd"),
    (500, b"Internal Server Error"),
    (502, b"Bad Gateway"),
    (503, b"Service Unavailable"),
    (504, b"Gateway Timeout"),
    (599, b"Odd"),
]


@pytest.mark.parametrize(("status", "reason"), STATUS_LINES)
async def test_status_and_reason_come_back(port, upstream, status, reason):
    body = b'{"detail":"as the upstream says"}'
    upstream.on_request = replies(answer(body, status=b"%d %b" % (status, reason)))

    response = await ask(port, post())

    assert (response.status, response.reason, response.body) == (status, reason, body)


EMPTY_ANSWERS = {
    "204": lines("HTTP/1.1 204 No Content"),
    "204 with a length": lines("HTTP/1.1 204 No Content", "Content-Length: 0"),
    "304": lines("HTTP/1.1 304 Not Modified", 'ETag: "x"'),
    "304 with a length": lines("HTTP/1.1 304 Not Modified", "Content-Length: 100"),
    "200 and nothing": lines("HTTP/1.1 200 OK", "Content-Length: 0"),
    "empty chunks": sse_head() + chunked(),
}


@pytest.mark.parametrize("raw", EMPTY_ANSWERS.values(), ids=EMPTY_ANSWERS)
async def test_an_answer_without_a_body_leaves_the_connection_in_order(port, upstream, raw):
    upstream.on_request = replies(raw)

    async with await RawClient.connect(port) as client:
        for _ in range(3):
            response = await client.ask(get())
            assert (response.body, response.is_complete) == (b"", True)
            assert b"%d" % response.status == raw.split(b" ")[1]


HEAD_ANSWERS = {
    "a length": (lines("HTTP/1.1 200 OK", "Content-Length: 1234"), b"1234"),
    "chunked": (lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), None),
    "neither": (lines("HTTP/1.1 200 OK", "X: y"), None),
}


@pytest.mark.parametrize(("raw", "length"), HEAD_ANSWERS.values(), ids=HEAD_ANSWERS)
async def test_a_head_request_has_headers_and_no_body(port, upstream, raw, length):
    upstream.on_request = replies(raw)

    async with await RawClient.connect(port) as client:
        for _ in range(2):
            response = await client.ask(lines("HEAD /v1/x HTTP/1.1", "Host: h"))
            assert (response.status, response.get(b"content-length")) == (200, length)
        upstream.on_request = replies(answer(b"next"))
        assert (await client.ask(get())).body == b"next"


UNTIL_CLOSE = {
    "HTTP/1.1": lines("HTTP/1.1 200 OK", "Content-Type: text/plain"),
    "HTTP/1.1 and close": lines("HTTP/1.1 200 OK", "Connection: close"),
    "HTTP/1.0": lines("HTTP/1.0 200 OK", "Content-Type: text/plain"),
    "HTTP/1.0 with a length": lines("HTTP/1.0 200 OK", "Content-Length: 9"),
    "HTTP/1.0 keep-alive with a length": lines(
        "HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 9"
    ),
}


@pytest.mark.parametrize("head", UNTIL_CLOSE.values(), ids=UNTIL_CLOSE)
async def test_an_upstream_that_ends_by_closing_is_understood(port, upstream, head):
    upstream.on_request = replies(head + b"123456789", "fin")

    for _ in range(3):
        response = await ask(port, get())
        assert (response.status, response.body, response.is_complete) == (200, b"123456789", True)


async def test_a_body_that_ends_by_closing_flows_while_it_comes(port, upstream):
    received = asyncio.Event()

    async def two_halves(connection, request):
        connection.write(lines("HTTP/1.0 200 OK") + b"first")
        await received.wait()
        connection.write(b"second")
        connection.close()

    upstream.on_request = two_halves

    async with await RawClient.connect(port) as client:
        await client.send(get())
        await client.read_until(b"first")
        received.set()
        await client.read_until(b"second")


INTERIM = {
    "103": [lines("HTTP/1.1 103 Early Hints", "Link: </a>; rel=preload")],
    "102": [lines("HTTP/1.1 102 Processing")],
    "100 unasked": [lines("HTTP/1.1 100 Continue")],
    "several": [lines("HTTP/1.1 103 Early Hints"), lines("HTTP/1.1 102 Processing")],
    "100 then 103": [lines("HTTP/1.1 100 Continue"), lines("HTTP/1.1 103 Early Hints", "A: b")],
}


@pytest.mark.parametrize("interim", INTERIM.values(), ids=INTERIM)
@pytest.mark.parametrize("apart", [True, False])
async def test_interim_answers_do_not_hide_the_final_one(port, upstream, interim, apart):
    async def script(connection, request):
        for raw in interim:
            connection.write(raw)
            if apart:
                await asyncio.sleep(0.005)
        connection.write(answer(b"final"))

    upstream.on_request = script

    async with await RawClient.connect(port) as client:
        for _ in range(2):
            response = await client.ask(post())
            assert (response.status, response.body) == (200, b"final")
            assert b" 100 " not in b"".join(head.start for head in response.informational)


async def test_a_100_in_two_writes_is_swallowed(port, upstream):
    async def llama_server(connection, request):
        connection.write(b"HTTP/1.1 100 Continue\r\n")
        await asyncio.sleep(0.01)
        connection.write(b"\r\n" + answer(b"final"))

    upstream.on_request = llama_server

    assert (await ask(port, post())).body == b"final"


async def test_answer_trailers_do_not_break_the_answer(port, upstream):
    upstream.on_request = replies(sse_head(b"Trailer: X-Sum") + chunked(b"abc", trailers=b"X-Sum: 3\r\n"))

    async with await RawClient.connect(port) as client:
        for _ in range(2):
            response = await client.ask(get())
            assert (response.body, response.is_complete) == (b"abc", True)
            assert response.trailers in ([], [(b"X-Sum", b"3")])


CHUNK_FORMS = {
    "upper case": b"A\r\n0123456789\r\n0\r\n\r\n",
    "leading zeros": b"0000a\r\n0123456789\r\n00\r\n\r\n",
    "extension": b"a;name=value\r\n0123456789\r\n0;x\r\n\r\n",
    "quoted extension": b'a;name="a;b"\r\n0123456789\r\n0\r\n\r\n',
    "byte by byte": b"".join(chunk(b"%d" % digit) for digit in range(10)) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("raw", CHUNK_FORMS.values(), ids=CHUNK_FORMS)
@pytest.mark.parametrize("cut", [1, 3, 7, 1000])
async def test_chunks_are_understood_however_they_are_cut(port, upstream, raw, cut):
    async def drip(connection, request):
        connection.write(sse_head())
        for start in range(0, len(raw), cut):
            connection.write(raw[start : start + cut])
            await asyncio.sleep(0)

    upstream.on_request = drip

    response = await ask(port, get())
    assert (response.body, response.is_complete) == (b"0123456789", True)


async def test_a_head_that_comes_byte_by_byte_is_one_head(port, upstream):
    async def drip(connection, request):
        for byte in answer(b"slow", b"X-Custom: 1"):
            connection.write(bytes([byte]))
            await asyncio.sleep(0.0005)

    upstream.on_request = drip

    response = await ask(port, get())
    assert (response.status, response.body, response.get(b"x-custom")) == (200, b"slow", b"1")


# --- event streams -----------------------------------------------------------

STREAMS = {
    "vllm": b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n',
    "crlf": b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\ndata: [DONE]\r\n\r\n',
    "cr": b'data: {"a":1}\r\rdata: [DONE]\r\r',
    "mixed": b'data: {"a":1}\n\r\ndata: {"a":2}\r\n\ndata: [DONE]\n\r',
    "comments": b': keepalive 16/17\n\n:\n\ndata: {"a":1}\n\n: ping - now\r\n\r\ndata: [DONE]\n\n',
    "no space": b'data:{"a":1}\n\ndata:[DONE]\n\n',
    "event and id": b'event: message\nid: 7\nretry: 10\ndata: {"a":1}\n\nevent: done\ndata:\n\n',
    "several data lines": b'data: {"a":\ndata: 1}\n\n',
    "no end": b'data: {"a":1}\n\ndata: {"a":2}',
    "no done": b'data: {"a":1}\n\n',
    "byte order mark": b'\xef\xbb\xbfdata: {"a":1}\n\n',
    "separators only unicode knows": b'data: {"a":"\xe2\x80\xa8\xe2\x80\xa9\xc2\x85\xef\xbb\xbf"}\n\n',
    "control characters": b"data: \x00\x01\x0b\x0c\x1c\x1b[0m\n\n",
    "not utf-8": b"data: \xff\xfe\xc3\n\n",
    "done inside": b'data: {"a":"data: [DONE]\\n\\n"}\n\ndata: [DONE]\n\n',
    "after done": b'data: [DONE]\n\ndata: {"more":1}\n\n',
    "error inside": b'data: {"error": {"message": "x", "code": 500}}\n\ndata: [DONE]\n\n',
    "usage in every chunk": b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"choices":[],"usage":{}}\n\n',
    "not json": b"data: {broken\n\ndata: null\n\ndata: 7\n\ndata: [DONE]\n\n",
    "blank lines": b"\n\n\n\r\n\r\ndata: 1\n\n\n\n",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
async def test_events_come_back_in_the_chunks_in_which_they_were_sent(port, upstream, stream):
    for size in (1, 5, 16, len(stream)):
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        upstream.on_request = replies(sse_head() + chunked(*pieces))

        response = await ask(port, post(body=b'{"model":"m","stream":true}'))

        assert response.is_complete
        assert response.chunks == pieces


async def test_every_cut_of_a_stream_gives_the_same_bytes(port, upstream):
    stream = 'data: {"a":"é😀"}\r\n\r\n: c\n\ndata: [DONE]\n\n'.encode()

    async def two_pieces(connection, request):
        cut = int(request.target.rsplit(b"/", 1)[1])
        connection.write(sse_head() + chunk(stream[:cut]))
        await asyncio.sleep(0.002)
        connection.write(chunk(stream[cut:]) + chunked())

    upstream.on_request = two_pieces

    cuts = range(1, len(stream))
    responses = await asyncio.gather(*(ask(port, post(b"/v1/x/%d" % cut)) for cut in cuts))
    assert [response.chunks for response in responses] == [[stream[:cut], stream[cut:]] for cut in cuts]


async def test_each_piece_arrives_before_the_next_is_sent(port, upstream):
    """Lock step: were anything buffered, even the head, this would stand still."""
    arrived = asyncio.Queue()

    async def lock_step(connection, request):
        connection.write(sse_head())
        assert await arrived.get() == "head"
        for number in range(20):
            connection.write(chunk(b"data: %d\n\n" % number))
            assert await arrived.get() == number
        connection.write(chunked())

    upstream.on_request = lock_step

    async with await RawClient.connect(port) as client:
        await client.send(post(body=b'{"stream":true}'))
        await client.read_head()
        await arrived.put("head")
        for number in range(20):
            assert await client.read_until(b"data: %d\n\n" % number)
            await arrived.put(number)
        assert (await client.read_until(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")


async def test_single_bytes_of_a_length_framed_body_flow(port, upstream):
    arrived = asyncio.Queue()

    async def lock_step(connection, request):
        connection.write(lines("HTTP/1.1 200 OK", "Content-Length: 10"))
        for digit in b"0123456789":
            connection.write(bytes([digit]))
            assert await arrived.get() == digit

    upstream.on_request = lock_step

    async with await RawClient.connect(port) as client:
        await client.send(get())
        await client.read_head()
        for digit in b"0123456789":
            assert await client.read_exactly(1) == bytes([digit])
            await arrived.put(digit)


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024, 4 * 1024 * 1024])
async def test_a_line_may_be_as_long_as_it_likes(port, upstream, size):
    line = b'data: {"image":"' + b"A" * size + b'"}\n\n'
    upstream.on_request = replies(sse_head() + chunked(line, b"data: [DONE]\n\n"))

    response = await ask(port, post(body=b'{"stream":true}'))

    assert response.chunks == [line, b"data: [DONE]\n\n"]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_16_mib_come_back(port, upstream, framing):
    body = bytes(range(256)) * (64 * 1024)
    raw, then = {
        "length": (answer(body), "keep"),
        "chunked": (
            sse_head() + chunked(*(body[at : at + 100_000] for at in range(0, len(body), 100_000))),
            "keep",
        ),
        "close": (lines("HTTP/1.0 200 OK") + body, "fin"),
    }[framing]
    upstream.on_request = replies(raw, then)

    response = await ask(port, get())

    assert response.is_complete
    assert response.body == body


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_16_mib_arrive(port, upstream, framing):
    body = bytes(range(256)) * (64 * 1024)
    request = post(b"/v1/x", body)
    if framing == "chunked":
        head = lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")
        request = head + chunked(*(body[at : at + 100_000] for at in range(0, len(body), 100_000)))

    response = await ask(port, request)

    assert response.status == 200
    assert upstream.requests[0].body == body


# --- connections -------------------------------------------------------------


async def test_one_connection_carries_many_requests(port, upstream):
    async def echo(connection, request):
        connection.write(answer(request.body))

    upstream.on_request = echo

    async with await RawClient.connect(port) as client:
        for number in range(50):
            response = await client.ask(post(b"/v1/x", b"%d" % number))
            assert response.body == b"%d" % number
    assert len(upstream.connections) <= 2


async def test_pipelined_requests_are_answered_in_their_order(port, upstream):
    async def echo(connection, request):
        connection.write(answer(request.body))

    upstream.on_request = echo

    async with await RawClient.connect(port) as client:
        await client.send(b"".join(post(b"/v1/x", b"n%d" % number) for number in range(20)))
        bodies = [(await client.read_response(b"POST")).body for _ in range(20)]
    assert bodies == [b"n%d" % number for number in range(20)]


async def test_thousands_of_pipelined_requests_are_answered_one_after_the_other(port):
    """What is answered without waiting must not pile up on the stack."""
    count = 5000

    async with await RawClient.connect(port) as client:
        await client.send(b"GET /no-such-page HTTP/1.1\r\nHost: x\r\n\r\n" * count)
        statuses = [(await client.read_response()).status for _ in range(count)]
    assert statuses == [404] * count


async def test_a_request_in_any_two_pieces_is_one_request(port, upstream):
    request = post(b"/v1/x?y", b"0123456789", b"X-Custom: 1")

    async def in_two(cut):
        async with await RawClient.connect(port) as client:
            await client.send(request[:cut])
            await asyncio.sleep(0.01)
            await client.send(request[cut:])
            return await client.read_response(b"POST")

    responses = await asyncio.gather(*(in_two(cut) for cut in range(1, len(request))))

    assert {response.status for response in responses} == {200}
    assert {seen.body for seen in upstream.requests} == {b"0123456789"}
    assert len(upstream.requests) == len(responses)


async def test_a_client_that_asks_for_close_gets_it(port, upstream):
    async with await RawClient.connect(port) as client:
        response = await client.ask(get(b"/v1/x", b"Connection: close"))
        assert response.body == b'{"ok":true}'
        assert await client.wait_end(2) == "fin"


async def test_answers_to_many_clients_at_once_are_not_mixed_up(port, upstream):
    async def echo(connection, request):
        connection.write(sse_head())
        for byte in request.body:
            connection.write(chunk(bytes([byte])))
            await asyncio.sleep(0.001)
        connection.write(chunked())

    upstream.on_request = echo

    bodies = [b"client-%03d" % number for number in range(100)]
    responses = await asyncio.gather(*(ask(port, post(b"/v1/x", body)) for body in bodies))
    assert [response.body for response in responses] == bodies


async def test_timing_between_pieces_is_the_upstreams(port, upstream):
    """Pieces sent 0.3 s apart arrive so: neither gathered nor delayed."""

    async def paced(connection, request):
        connection.write(sse_head())
        for number in range(5):
            connection.write(chunk(b"%d" % number))
            await asyncio.sleep(0.3)
        connection.write(chunked())

    upstream.on_request = paced

    async with await RawClient.connect(port) as client:
        await client.send(get())
        response = await client.read_response()
        times = [at for at, _ in client.arrivals]
    assert response.body == b"01234"
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert sum(gap > 0.1 for gap in gaps) == 5


# --- large bodies ----------------------------------------------------------------


@pytest.mark.parametrize("renamed", [False, True])
async def test_a_large_body_is_held_at_most_twice_and_then_let_go(
    new_gateway, upstream, backend_port, renamed
):
    if os.environ.get("LLMPROXY_PROBE_LOOP") == "asyncio":
        pytest.skip("asyncio's transport has copies of its own of what it cannot write at once")
    # More than glibc would keep for itself (its largest mmap threshold is 32 MiB).
    body = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % (b"x" * 40 * 1024 * 1024)
    names = {"models": [{"id": "m", "pool": "default", "upstream_model": "n"}]} if renamed else {}
    gateway = new_gateway(settings(backend_port, server={"max_body_size": "64MiB"}, **names))
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post())
        await client.read_response(b"POST")
        before = gateway.resident_bytes
        gateway.forget_peak()

        for _ in range(2):
            await client.send(post(body=body), 30)
            response = await client.read_response(b"POST", 30)
            assert response.status == 200

        assert gateway.peak_bytes - before <= 2.2 * len(body)
        await eventually(lambda: gateway.resident_bytes - before <= 0.5 * len(body), "the body is let go")
