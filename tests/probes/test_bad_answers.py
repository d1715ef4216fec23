"""An upstream that breaks HTTP is a 502, or a visibly broken answer; nobody else's answer is touched.

After every bad answer the same client (or a new one, where its connection had
to end) asks again, and must get exactly what the upstream says then.
"""

import asyncio

import pytest
from kit.client import RawClient, ask, outcome
from kit.upstream import replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

OK = "HTTP/1.1 200 OK"
BODY = b"0123456789"
CHUNKED = "Transfer-Encoding: chunked"

BAD_HEADS = {
    # status lines
    "not http": b"hello, I am not a web server\r\n\r\n",
    "not http, no end": b"hello, I am not a web server",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "nul bytes": b"\0" * 100,
    "HTTP/0.9 body": b"<html>old</html>",
    "empty line first": b"\r\n" + answer(BODY),
    "HTTP/2.0": lines("HTTP/2.0 200 OK", "Content-Length: 0"),
    "HTTP/0.9": lines("HTTP/0.9 200 OK", "Content-Length: 0"),
    "HTTP/1.2": lines("HTTP/1.2 200 OK", "Content-Length: 0"),
    "HTTP/1.10": lines("HTTP/1.10 200 OK", "Content-Length: 0"),
    "lower case": lines("http/1.1 200 OK", "Content-Length: 0"),
    "icy": lines("ICY 200 OK", "Content-Length: 0"),
    "status of two digits": lines("HTTP/1.1 20 OK", "Content-Length: 0"),
    "status of four digits": lines("HTTP/1.1 2000 OK", "Content-Length: 0"),
    "status of words": lines("HTTP/1.1 abc OK", "Content-Length: 0"),
    "status 000": lines("HTTP/1.1 000 OK", "Content-Length: 0"),
    "status 099": lines("HTTP/1.1 099 OK", "Content-Length: 0"),
    "status minus": lines("HTTP/1.1 -20 OK", "Content-Length: 0"),
    "no status": lines("HTTP/1.1", "Content-Length: 0"),
    "two spaces": lines("HTTP/1.1  200 OK", "Content-Length: 0"),
    "tab": lines("HTTP/1.1\t200\tOK", "Content-Length: 0"),
    "nul in the reason": lines(b"HTTP/1.1 200 O\0K", "Content-Length: 0"),
    "bare cr in the reason": lines(b"HTTP/1.1 200 O\rK", "Content-Length: 0"),
    "bare lf in the reason": lines(b"HTTP/1.1 200 O\nK", "Content-Length: 0"),
    "escape in the reason": lines(b"HTTP/1.1 200 \x1b[0m", "Content-Length: 0"),
    # lengths and codings
    "two lengths": lines(OK, "Content-Length: 10", "Content-Length: 5") + BODY,
    "two equal lengths": lines(OK, "Content-Length: 10", "Content-Length: 10") + BODY,
    "length list": lines(OK, "Content-Length: 10, 10") + BODY,
    "length plus": lines(OK, "Content-Length: +10") + BODY,
    "length minus": lines(OK, "Content-Length: -10") + BODY,
    "length hex": lines(OK, "Content-Length: 0xa") + BODY,
    "length word": lines(OK, "Content-Length: ten") + BODY,
    "length empty": lines(OK, "Content-Length:") + BODY,
    "length of 2^64": lines(OK, "Content-Length: 18446744073709551626") + BODY,
    "length and coding": lines(OK, "Content-Length: 10", CHUNKED) + chunked(BODY),
    "coding and length": lines(OK, CHUNKED, "Content-Length: 10") + chunked(BODY),
    "two codings": lines(OK, CHUNKED, CHUNKED) + chunked(BODY),
    "coding list": lines(OK, "Transfer-Encoding: gzip, chunked") + chunked(BODY),
    "coding twice in a list": lines(OK, "Transfer-Encoding: chunked, chunked") + chunked(BODY),
    "coding identity": lines(OK, "Transfer-Encoding: identity") + BODY,
    "coding unknown": lines(OK, "Transfer-Encoding: xchunked") + chunked(BODY),
    "coding empty": lines(OK, "Transfer-Encoding:") + chunked(BODY),
    "coding in HTTP/1.0": lines("HTTP/1.0 200 OK", CHUNKED) + chunked(BODY),
    # header lines
    "space before colon": lines(OK, "Content-Length : 10") + BODY,
    "space in a name": lines(OK, "X Y: a", "Content-Length: 10") + BODY,
    "no colon": lines(OK, "nonsense", "Content-Length: 10") + BODY,
    "empty name": lines(OK, ": a", "Content-Length: 10") + BODY,
    "bracket in a name": lines(OK, "X(: a", "Content-Length: 10") + BODY,
    "high byte in a name": lines(OK, b"X\xe9: a", "Content-Length: 10") + BODY,
    "folded": lines(OK, "X: a\r\n b", "Content-Length: 10") + BODY,
    "folded first": lines(OK, " X: a", "Content-Length: 10") + BODY,
    "nul in a value": lines(OK, b"X: a\0b", "Content-Length: 10") + BODY,
    "control in a value": lines(OK, b"X: \x01", "Content-Length: 10") + BODY,
    "bare cr in a value": lines(OK, b"X: a\rb", "Content-Length: 10") + BODY,
    "bare lf in a value": lines(OK, b"X: a\nb", "Content-Length: 10") + BODY,
    "bare lf everywhere": answer(BODY).replace(b"\r\n", b"\n"),
    # sizes
    "endless line": b"HTTP/1.1 200 " + b"O" * 1_500_000,
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_500_000,
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300_000,
    # upgrades
    "101 unasked": lines("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: upgrade") + BODY,
    "101 without a head": lines("HTTP/1.1 101 Switching Protocols"),
    "endless interim": lines("HTTP/1.1 103 Early Hints") * 5000,
    # nothing at all
    "interim then nothing": lines("HTTP/1.1 103 Early Hints"),
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": lines(OK, "Content-Length: 10")[:-2],
}


@pytest.mark.parametrize("raw", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_bad_head_is_a_502(port, upstream, raw):
    complete = raw.endswith(b"\r\n\r\n") or len(raw) > 1_000_000
    upstream.on_request = replies(raw, "keep" if complete and raw.count(b"103") != 1 else "fin")

    async with await RawClient.connect(port) as client:
        response = await client.ask(post())
        assert (response.status, response.is_complete) == (502, True)
        assert BODY not in response.body

        await upstream.connections[0].wait_end()
        upstream.on_request = replies(answer(b"fine"))
        assert (await client.ask(post())).body == b"fine"


async def test_an_upgrade_cannot_be_had_even_if_the_upstream_agrees(port, upstream):
    upstream.on_request = replies(lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket"))
    request = get(b"/v1/x", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")

    response = await ask(port, request)

    assert response.status in (400, 426, 501, 502)


BAD_BODIES = {
    "size of words": b"five\r\nhello\r\n",
    "size empty": b"\r\nhello\r\n",
    "size plus": b"+5\r\nhello\r\n",
    "size minus": b"-5\r\nhello\r\n",
    "size hex prefix": b"0x5\r\nhello\r\n",
    "size 2^64": b"10000000000000005\r\nhello\r\n",
    "size endless": b"0" * 100_000,
    "size bare lf": b"5\nhello\r\n",
    "size nul": b"5\0\r\nhello\r\n",
    "size blank first": b" 5\r\nhello\r\n",
    "extension bare cr": b"5;a\rb\r\nhello\r\n",
    "extension endless": b"5;" + b"a" * 200_000,
    "end missing": b"5\r\nhello5\r\n",
    "end of lf": b"5\r\nhello\n",
    "end of other": b"5\r\nhelloXX",
    "too long": b"3\r\nhello\r\n",
    "sse without chunks": b"data: {}\n\ndata: [DONE]\n\n",
    "trailer without colon": b"0\r\nnonsense\r\n\r\n",
    "trailer folded": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer bare lf": b"0\r\nX: a\nY: b\r\n\r\n",
    "trailer nul": b"0\r\nX: \0\r\n\r\n",
    "trailer endless": b"0\r\n" + b"X: y\r\n" * 100_000,
    "last chunk bare lf": b"0\n\n",
}


@pytest.mark.parametrize("raw", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("before", [b"", b"data: 1\n\n"])
@pytest.mark.parametrize("apart", [True, False])
async def test_a_bad_body_never_looks_finished(port, upstream, raw, before, apart):
    async def script(connection, request):
        good = sse_head() + (chunk(before) if before else b"")
        if apart:
            connection.write(good)
            await asyncio.sleep(0.005)
            connection.write(raw)
        else:
            connection.write(good + raw)

    upstream.on_request = script

    response = await outcome(port, post())
    if not isinstance(response, str):
        assert response.status == 502 or (response.status == 200 and response.end in ("fin", "rst"))
    await upstream.connections[0].wait_end()
    upstream.on_request = replies(answer(b"fine"))
    assert (await ask(port, post())).body == b"fine"


EXTRA = {
    "behind a length": answer(BODY) + b"extra",
    "another answer behind a length": answer(BODY) + answer(b"POISON"),
    "behind chunks": sse_head() + chunked(BODY) + b"extra",
    "another answer behind chunks": sse_head() + chunked(BODY) + answer(b"POISON"),
    "behind an empty body": lines(OK, "Content-Length: 0") + b"extra",
    "body of a 204": lines("HTTP/1.1 204 No Content") + answer(b"POISON"),
    "body of a 204 with a length": lines("HTTP/1.1 204 No Content", "Content-Length: 6") + b"POISON",
    "body of a 304": lines("HTTP/1.1 304 Not Modified", "Content-Length: 6") + b"POISON",
    "chunks of a 304": lines("HTTP/1.1 304 Not Modified", CHUNKED) + chunked(b"POISON"),
}


@pytest.mark.parametrize("raw", EXTRA.values(), ids=EXTRA)
@pytest.mark.parametrize("late", [0.0, 0.02])
async def test_extra_bytes_poison_nobody(port, upstream, raw, late):
    end = raw.find(b"extra") if b"extra" in raw else raw.find(b"HTTP", 5) if b"HTTP" in raw[5:] else -6

    async def script(connection, request):
        connection.write(raw[:end])
        if late:
            await asyncio.sleep(late)
        connection.write(raw[end:])

    upstream.on_request = script

    async with await RawClient.connect(port) as client:
        try:
            response = await client.ask(get())
            assert response.status in (200, 204, 304, 502)
            assert b"POISON" not in response.body
        finally:
            await asyncio.sleep(late * 2)
            upstream.on_request = replies(answer(b"fine"))
        for _ in range(3):
            assert (await ask(port, get())).body == b"fine"
        if client.ending is None:
            assert (await client.ask(get())).body == b"fine"
    assert len(upstream.connections) > 1
    assert upstream.connections[0].served == 1


async def test_a_body_behind_a_head_request_poisons_nobody(port, upstream):
    upstream.on_request = replies(lines(OK, "Content-Length: 6") + b"POISON")

    async with await RawClient.connect(port) as client:
        response = await client.ask(lines("HEAD /v1/x HTTP/1.1", "Host: h"))
        assert (response.status, client.unread) == (200, b"")
        upstream.on_request = replies(answer(b"fine"))
        for _ in range(3):
            assert (await client.ask(get())).body == b"fine"
    assert upstream.connections[0].served == 1


@pytest.mark.parametrize(
    "raw", [b"x", answer(b"POISON"), lines("HTTP/1.1 408 Request Timeout", "Connection: close")]
)
async def test_bytes_on_an_idle_connection_are_nobodys_answer(port, upstream, raw):
    assert (await ask(port, get())).status == 200
    await asyncio.sleep(0.1)
    upstream.connections[0].write(raw)
    upstream.on_request = replies(answer(b"fine"))

    for _ in range(3):
        assert (await ask(port, get())).body == b"fine"
    assert upstream.connections[0].served == 1


LENIENT = {
    "no reason and no space": b"HTTP/1.1 200\r\nContent-Length: 10\r\n\r\n" + BODY,
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 10\r\n\r\n" + BODY,
    "length with zeros": lines(OK, "Content-Length: 00010") + BODY,
    "coding in capitals": lines(OK, "Transfer-Encoding: CHUNKED") + chunked(BODY),
    "connection and keep-alive": lines(
        OK, "Connection: keep-alive", "Keep-Alive: timeout=5", "Content-Length: 10"
    )
    + BODY,
    "connection close": lines(OK, "Connection: close", "Content-Length: 10") + BODY,
}


@pytest.mark.parametrize("raw", LENIENT.values(), ids=LENIENT)
async def test_a_harmless_oddity_is_relayed_or_refused_but_never_garbled(port, upstream, raw):
    upstream.on_request = replies(raw)

    for _ in range(2):
        response = await ask(port, get())
        assert response.is_complete
        assert (response.status, response.body) == (200, BODY) or response.status == 502
        assert not {b"keep-alive", b"proxy-connection"} & set(response.head.names())


async def test_hop_by_hop_headers_of_an_answer_end_here(port, upstream):
    sent = [b"Connection: X-Hop, keep-alive", b"X-Hop: 1", b"Keep-Alive: timeout=5", b"X-Stays: 1"]
    sent += [b"Proxy-Connection: keep-alive", b"Upgrade: h2c"]
    upstream.on_request = replies(answer(BODY, *sent))

    response = await ask(port, get())

    names = set(response.head.names())
    assert b"x-stays" in names
    assert not names & {b"x-hop", b"keep-alive", b"proxy-connection", b"upgrade"}
