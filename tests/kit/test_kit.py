"""The probes' own tools tell whole from broken: a client straight at a scripted upstream."""

import pytest
from kit import wire
from kit.client import Ended, Malformed, RawClient, Silent, ask
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

WHOLE = [
    (answer(b"body"), "keep", "length", b"body"),
    (sse_head() + chunked(b"one", b"two"), "keep", "chunked", b"onetwo"),
    (lines("HTTP/1.1 200 OK") + b"until close", "fin", "close", b"until close"),
    (lines("HTTP/1.0 200 OK") + b"until close", "fin", "close", b"until close"),
    (lines("HTTP/1.1 204 No Content"), "keep", "none", b""),
]

BROKEN = [
    (answer(b"body")[:-1], "fin", "fin"),
    (answer(b"body")[:-1], "rst", "rst"),
    (answer(b"body")[:-1], "stall", "silent"),
    (sse_head() + chunk(b"one"), "fin", "fin"),
    (sse_head() + chunk(b"one") + b"0\r\n", "rst", "rst"),
    (lines("HTTP/1.0 200 OK") + b"until close", "rst", "rst"),
]

UNCLEAN_REQUESTS = [
    lines("GET / HTTP/1.1"),
    lines("GET / HTTP/1.1", "Host: a", "Host: a"),
    lines("GET / HTTP/1.0", "Host: a"),
    lines("GET  / HTTP/1.1", "Host: a"),
    lines("GET / HTTP/1.1", "Host: a", "X : b"),
    lines("GET / HTTP/1.1", "Host: a", " folded"),
    lines("GET / HTTP/1.1", "Host: a", "X: a\nb"),
    lines("GET / HTTP/1.1", "Host: a", "X: a\0b"),
    lines("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    lines("POST / HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 1") + b"x",
    lines("POST / HTTP/1.1", "Host: a", "Content-Length: +1") + b"x",
    lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked") + b"0x1\r\nx\r\n0\r\n\r\n",
]


@pytest.mark.parametrize(("raw", "then", "framing", "body"), WHOLE)
async def test_a_whole_answer_is_complete(raw, then, framing, body):
    async with ScriptedUpstream(replies(raw, then)) as upstream:
        response = await ask(upstream.port, get())

    assert (response.framing, response.body, response.is_complete) == (framing, body, True)


@pytest.mark.parametrize(("raw", "then", "end"), BROKEN)
async def test_a_broken_answer_is_not(raw, then, end):
    async with ScriptedUpstream(replies(raw, then)) as upstream:
        response = await ask(upstream.port, get(), 0.2)

    assert response.end == end


async def test_a_cut_head_is_an_ending_not_an_answer():
    async with ScriptedUpstream(replies(answer()[:20], "rst")) as upstream:
        with pytest.raises(Ended, match="rst"):
            await ask(upstream.port, get())


async def test_silence_is_told_from_an_ending():
    async with ScriptedUpstream(replies(b"", "stall")) as upstream:
        with pytest.raises(Silent):
            await ask(upstream.port, get(), 0.05)


async def test_requests_are_recorded_to_the_byte():
    request = post(b"/v1/x?y#z", b"body", b"X-Odd:  \xff ")
    async with ScriptedUpstream() as upstream:
        await ask(upstream.port, request)

    assert upstream.requests[0].raw == request
    assert upstream.requests[0].body == b"body"
    assert upstream.requests[0].head.get(b"x-odd") == b"\xff"


@pytest.mark.parametrize("request_bytes", UNCLEAN_REQUESTS)
async def test_a_request_that_two_parsers_could_read_differently_is_unclean(request_bytes):
    async with ScriptedUpstream() as upstream:
        with pytest.raises(Ended):
            await ask(upstream.port, request_bytes)

        assert upstream.unclean


async def test_bytes_behind_a_request_are_unclean():
    async with ScriptedUpstream() as upstream:
        await ask(upstream.port, get() + b"more")

    assert upstream.unclean


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_malformed(raw):
    async with ScriptedUpstream(replies(raw)) as upstream:
        with pytest.raises(Malformed):
            await ask(upstream.port, get())


async def test_informational_answers_are_kept_apart():
    early = lines("HTTP/1.1 103 Early Hints", "Link: </a>")
    async with ScriptedUpstream(replies(early + answer(b"x"))) as upstream:
        response = await ask(upstream.port, get())

    assert [head.get(b"link") for head in response.informational] == [b"</a>"]
    assert response.body == b"x"


async def test_an_upstream_sees_its_client_leave():
    async with ScriptedUpstream(replies(b"", "stall")) as upstream:
        async with await RawClient.connect(upstream.port) as client:
            await client.send(get())
            await upstream.wait_requests(1)
            assert upstream.open_connections == 1

        assert await upstream.connections[0].wait_end() in ("fin", "rst")


async def test_trailers_come_with_the_chunks():
    raw = sse_head() + chunked(b"x", trailers=b"X-Sum: 7\r\n")
    async with ScriptedUpstream(replies(raw)) as upstream:
        response = await ask(upstream.port, get())

    assert response.trailers == [(b"X-Sum", b"7")]
    assert wire.is_chunked(response.head)
