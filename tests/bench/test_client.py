"""The client that measures, against servers that answer in every way."""

import asyncio

import pytest
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, sse_head

from proxy.bench.client import BenchError, Client, Target

EVENT = b'data: {"choices":[]}\n\n'


def target_of(upstream, path=""):
    return Target.of(f"http://127.0.0.1:{upstream.port}{path}", "sk-bench")


async def test_pieces_are_noted_as_they_come():
    async def script(connection, request):
        connection.write(sse_head())
        for _ in range(3):
            await asyncio.sleep(0.02)
            connection.write(chunk(EVENT))
        await asyncio.sleep(0.02)
        connection.write(chunked())

    async with ScriptedUpstream(script) as upstream:
        client = Client(target_of(upstream))
        found = await client.ask(target_of(upstream).request("POST", "/v1/chat/completions", b"{}"))
        client.close()

    assert found.status == 200
    assert sum(found.events) == 3
    gaps = [b - a for a, b in zip(found.arrivals, found.arrivals[1:], strict=False)]
    assert all(gap > 0.01 for gap in gaps)
    assert found.asked + 0.015 < found.first_byte < found.ended


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"hello"),
        answer(b""),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_a_connection_that_stays_is_used_again(raw):
    async with ScriptedUpstream(replies(raw)) as upstream:
        client = Client(target_of(upstream))
        request = target_of(upstream).request("GET", "/v1/x")
        for _ in range(3):
            await client.ask(request)
        client.close()

        assert len(upstream.connections) == 1
        assert len(upstream.requests) == len(client.answers) == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_a_server_that_closes_gets_a_new_connection(raw):
    async with ScriptedUpstream(replies(raw, "fin")) as upstream:
        client = Client(target_of(upstream))
        client.content = []
        for _ in range(2):
            assert (await client.ask(target_of(upstream).request("GET", "/v1/x"))).status == 200

        assert b"".join(client.content) == b"hellohello"
        assert len(upstream.connections) == 2
        client.close()


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_a_server_that_closes_between_answers_is_asked_again(ending):
    """As llama-server does after a stream: it says that it keeps the connection, and ends it."""

    async def script(connection, request):
        if connection.served == 2:
            getattr(connection, ending)()
        else:
            connection.write(answer(b"hello"))

    async with ScriptedUpstream(script) as upstream:
        client = Client(target_of(upstream))
        for _ in range(3):
            assert (await client.ask(target_of(upstream).request("GET", "/v1/x"))).status == 200

        assert len(client.answers) == 3
        assert len(upstream.connections) == 3
        client.close()


@pytest.mark.parametrize(
    "raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"no HTTP\r\n\r\n"]
)
async def test_an_answer_that_is_none_is_an_error(raw):
    async with ScriptedUpstream(replies(raw, "fin")) as upstream:
        with pytest.raises(BenchError):
            await Client(target_of(upstream)).ask(target_of(upstream).request("GET", "/v1/x"))


async def test_a_server_that_is_not_there_is_named():
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:1 cannot be reached"):
        await Client(Target.of("http://127.0.0.1:1")).ask(b"")


@pytest.mark.parametrize(("path", "target"), [("", b"/v1/x"), ("/v1", b"/v1/x"), ("/api/v1/", b"/api/v1/x")])
async def test_a_url_may_end_with_v1_or_not(path, target):
    async with ScriptedUpstream() as upstream:
        client = Client(target_of(upstream, path))
        await client.ask(target_of(upstream, path).request("GET", "/v1/x"))
        client.close()

        (request,) = upstream.requests
        assert request.target == target
        assert request.head.get(b"authorization") == b"Bearer sk-bench"


def test_a_url_that_is_none_is_said():
    with pytest.raises(BenchError, match="no URL"):
        Target.of("127.0.0.1:8000")
