"""Comments before an upstream has said anything: a stream that we begin, and what becomes of it."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.receiver import Receiver
from kit.upstream import ScriptedUpstream
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

CHAT = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
COMMENT = b": keep-alive\n\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
END = b"data: [DONE]\n\n"
BREAKER = {"breaker": {"failures": 1, "open_for": "60s"}}


class World:
    """A gateway whose upstream says nothing before `go_on` is set, and then `says`, and a client of it."""

    def __init__(self, gateway, upstream, receiver):
        self.gateway, self.upstream, self.receiver = gateway, upstream, receiver
        self.go_on = asyncio.Event()
        self.says = b""
        self.ends = ""
        upstream.on_request = self._script

    async def _script(self, connection, request):
        await self.go_on.wait()
        connection.write(self.says)
        if self.ends:
            getattr(connection, self.ends)()

    async def answer_after_comments(self, says, request=None, ends=""):
        """What the client has got after it saw a comment and the upstream then spoke."""
        self.says, self.ends = says, ends
        async with await RawClient.connect(self.gateway.port) as client:
            client.write(request or post(body=CHAT))
            await eventually(lambda: COMMENT in client.received, "there is a comment")
            self.go_on.set()
            return await client.read_response()

    async def has_failed(self):
        page = await ask(self.gateway.port, get(b"/metrics"))
        return b'llmproxy_upstream_breaker_state{backend="backend-0"} 2' in page.body


@pytest.fixture
async def world(new_gateway):
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        receiver = await stack.enter_async_context(Receiver())
        webhook = {"name": "w", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}
        gateway = new_gateway(
            settings(
                upstream.port,
                models=[{"id": "m", "sse_keep_alive": "200ms"}, {"id": "other"}],
                usage={"enabled": True, "reporters": [webhook]},
                routing=BREAKER,
            )
        )
        yield World(gateway, upstream, receiver)


def rest(response):
    """The body behind the comments at its beginning."""
    body = response.body
    while body.startswith(COMMENT):
        body = body[len(COMMENT) :]
    return body


async def test_a_silent_upstreams_stream_follows_the_comments(world):
    response = await world.answer_after_comments(sse_head(b"X-Up: 1") + chunked(EVENT, EVENT, END))

    assert (response.status, response.end) == (200, "complete")
    assert response.get(b"content-type") == b"text/event-stream"
    assert response.get(b"x-accel-buffering") == b"no"
    assert response.get(b"x-request-id").startswith(b"req_")
    assert rest(response) == EVENT + EVENT + END
    (record,) = await world.receiver.wait_records(1)
    assert (record["status_code"], record["outcome"], record["stream"]) == (200, "complete", True)
    assert not await world.has_failed()


async def test_the_connection_serves_another_request_behind_it(world):
    world.says = sse_head() + chunked(EVENT, END)
    async with await RawClient.connect(world.gateway.port) as client:
        client.write(post(body=CHAT))
        await eventually(lambda: COMMENT in client.received, "there is a comment")
        world.go_on.set()
        assert rest(await client.read_response()) == EVENT + END
        assert (await client.ask(post(body=CHAT))).body == EVENT + END


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (answer(b'{"error": "no"}', status=b"400 Bad Request"), 400),
        (answer(b'{"detail": "prompt is too long"}', status=b"500 Oh"), 500),
    ],
)
async def test_an_error_becomes_an_event_and_no_clean_end(world, reply, code):
    response = await world.answer_after_comments(reply)

    assert response.end == "fin"
    error = json.loads(rest(response).removeprefix(b"data: "))["error"]
    assert error["message"] in ("no", "prompt is too long")
    (record,) = await world.receiver.wait_records(1)
    assert (record["status_code"], record["outcome"], record["incomplete"]) == (code, "error", True)
    assert not await world.has_failed()


async def test_a_servers_error_is_the_servers(world):
    response = await world.answer_after_comments(answer(b"<h1>Oh</h1>", status=b"502 Bad Gateway"))

    assert json.loads(rest(response).removeprefix(b"data: "))["error"]["message"] == "Oh"
    await eventually(world.has_failed, "the breaker has heard of it")


async def test_anthropics_clients_get_an_error_of_theirs(world):
    reply = answer(b'{"error": {"message": "no"}}', status=b"400 Bad Request")
    response = await world.answer_after_comments(reply, post(b"/v1/messages", CHAT))

    event, _, data = rest(response).partition(b"\ndata: ")
    assert event == b"event: error"
    assert json.loads(data)["type"] == "error"
    assert json.loads(data)["error"]["message"] == "no"


@pytest.mark.parametrize("ends", ["close", "reset"])
@pytest.mark.parametrize(
    "says", [b"", sse_head(), answer(b'{"error": 1}', status=b"500 Oh")[:-1], answer(b"{}")]
)
async def test_what_is_no_stream_or_breaks_off_says_so(world, says, ends):
    response = await world.answer_after_comments(says, ends=ends)

    assert response.end in ("fin", "rst")
    told = rest(response)
    assert told == b"" if says == sse_head() else b'"error"' in told
    assert b"[DONE]" not in told


async def test_an_error_without_end_is_bounded(world):
    head = lines(b"HTTP/1.1 400 Bad Request", b"Content-Type: text/plain", b"Transfer-Encoding: chunked")
    response = await world.answer_after_comments(head + chunk(b"x" * 70_000))

    assert b'"error"' in rest(response)
    assert len(rest(response)) < 10_000
    await eventually(lambda: world.upstream.open_connections == 0, "the upstream is left")


async def test_a_hint_does_not_get_into_a_body_that_has_begun(world):
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    response = await world.answer_after_comments(hint + sse_head() + chunked(EVENT, END))

    assert rest(response) == EVENT + END


async def test_a_client_that_leaves_frees_the_upstream(world):
    async with await RawClient.connect(world.gateway.port) as client:
        client.write(post(body=CHAT))
        await eventually(lambda: COMMENT in client.received, "there is a comment")

    await eventually(lambda: world.upstream.open_connections == 0, "the upstream is left")
    (record,) = await world.receiver.wait_records(1)
    assert record["outcome"] == "client_closed"


@pytest.mark.parametrize(
    "request_",
    [
        post(body=CHAT.replace(b"true", b"false")),
        post(body=CHAT.replace(b'"m"', b'"other"')),
        post(body=CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_nobody_else_gets_a_stream_of_ours(world, request_):
    """Not who wants no stream, nor another model's client, nor one that knows no chunks."""
    world.says = answer(b'{"whole": 1}')
    async with (
        await RawClient.connect(world.gateway.port) as other,
        await RawClient.connect(world.gateway.port) as client,
    ):
        client.write(request_)
        await world.upstream.wait_requests(1)
        other.write(post(body=CHAT))  # whose comments show that the time for them has come
        await eventually(lambda: other.received.count(COMMENT) == 2, "others get comments")
        world.go_on.set()
        response = await client.read_response()

    assert response.body == b'{"whole": 1}'


async def test_an_upstream_that_is_quick_to_answer_keeps_its_head(world):
    world.go_on.set()
    world.says = answer(b"{}", b"X-Up: 1", status=b"404 Not Found")

    response = await ask(world.gateway.port, post(body=CHAT))

    assert (response.status, response.get(b"x-up"), response.body) == (404, b"1", b"{}")
    world.says = sse_head(b"X-Up: 1") + chunked(EVENT, END)
    assert (await ask(world.gateway.port, post(body=CHAT))).get(b"x-up") == b"1"
