"""Servers that take a connection, or send a head, and then nothing: it is the turn of another."""

import json
import signal
from contextlib import AsyncExitStack

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, get, post, sse_head

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
IN_TURN = {"load_balance": "round_robin", "affinity": {"enabled": False}, "breaker": {"enabled": False}}
STREAM = sse_head() + chunk(b"data: {}\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.fixture
async def upstreams():
    async with AsyncExitStack() as stack:

        async def make(script=None, **options):
            return await stack.enter_async_context(ScriptedUpstream(script, **options))

        yield make


async def attempts(gateway, number):
    """The attempts of all access lines, once there are so many lines."""

    def found():
        lines = [json.loads(line) for line in gateway.log_lines() if '"attempts"' in line]
        return [line["attempts"] for line in lines if line["path"] != "/metrics"]

    await eventually(lambda: len(found()) >= number, f"{number} access lines")
    return found()


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_server_that_closes_what_it_accepts_is_left_for_another(new_gateway, upstreams, how):
    """As a balancer without servers does. Sessions have one home, so nobody else would be asked."""

    async def slam(connection):
        getattr(connection, how)()

    slamming, well = await upstreams(on_connection=slam), await upstreams()
    again = {"enabled": True, "retry_on": ["no_answer"], "budget": 1.0}  # where it came too late to be sure
    routing = {"breaker": {"enabled": False}, "retry": again}
    gateway = new_gateway(settings(slamming.port, well.port, routing=routing))

    answers = [
        await ask(gateway.port, post(b"/v1/chat/completions", CHAT, b"x-session-id: s%d" % number))
        for number in range(16)
    ]

    assert {response.status for response in answers} == {200}
    assert len(well.requests) == 16
    assert 0 < len(slamming.connections) <= 16


async def test_a_single_server_that_closes_what_it_accepts_is_not_asked_for_ever(new_gateway, upstreams):
    async def slam(connection):
        connection.reset()

    slamming = await upstreams(on_connection=slam)
    gateway = new_gateway(settings(slamming.port))

    response = await ask(gateway.port, post(body=CHAT))

    assert response.status == 502
    assert len(slamming.connections) == 1


@pytest.mark.parametrize("why", ["down", "drained"])
async def test_who_is_alone_is_tried_again_after_a_wait(new_gateway, upstreams, why):
    """A server that may not be used is nobody to go to."""
    turns = iter([b"503 Busy", b"503 Busy", b"200 OK"])

    async def script(connection, request):
        if request.method == b"POST":
            connection.write(answer(b"{}", status=next(turns)))
        else:
            connection.write(answer())

    alone, other = await upstreams(script), await upstreams()
    retry = {"enabled": True, "initial_wait": "10ms", "budget": 1.0}
    made = settings(alone.port, other.port, routing={**IN_TURN, "retry": retry})
    if why == "down":
        made["backends"][1]["url"] = f"http://127.0.0.1:{free_port()}"
        made["health_check"] = {"enabled": True, "interval": "50ms", "unhealthy_threshold": 1}
    else:
        made["backends"][1]["weight"] = 0
    gateway = new_gateway(made)

    async def is_alone():
        page = (await ask(gateway.port, get(b"/metrics"))).body
        return why == "drained" or b'llmproxy_upstream_up{backend="backend-1"} 0' in page

    await eventually(is_alone, "the other one is out")

    response = await ask(gateway.port, post(body=CHAT))

    assert response.status == 200
    assert (await attempts(gateway, 1))[-1] == ["backend-0:503", "backend-0:503", "backend-0:200"]


# -- a head, and nothing behind it: vLLM sends it before it has begun to work -------


def stalls():
    async def script(connection, request):
        connection.write(sse_head())
        await connection.stall()

    return script


def dies(how):
    async def script(connection, request):
        connection.write(sse_head())
        getattr(connection, how)()

    return script


def two(silent, well, **routing):
    return settings(silent.port, well.port, routing={**IN_TURN, **routing})


async def served(gateway, number=2):
    answers = [await ask(gateway.port, post(body=CHAT)) for _ in range(number)]
    assert [(response.status, response.end) for response in answers] == [(200, "complete")] * number
    assert {response.body for response in answers} == {b"data: {}\n\ndata: [DONE]\n\n"}
    assert all(len(response.head.all(b"content-type")) == 1 for response in answers)


async def test_a_head_without_a_body_is_followed_by_another_server(new_gateway, upstreams):
    silent, well = await upstreams(stalls()), await upstreams(replies(STREAM))
    retry = {"enabled": True, "retry_on": ["first_byte_timeout"], "budget": 1.0}
    gateway = new_gateway(two(silent, well, retry=retry, timeouts={"first_byte": "2s"}))

    await served(gateway)

    assert ["backend-0:first_byte_timeout", "backend-1:200"] in await attempts(gateway, 2)
    assert (len(silent.requests), len(well.requests)) == (1, 2)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_server_that_dies_behind_its_head_has_given_no_answer(new_gateway, upstreams, how):
    dying, well = await upstreams(dies(how)), await upstreams(replies(STREAM))
    retry = {"enabled": True, "retry_on": ["no_answer"], "budget": 1.0}
    gateway = new_gateway(two(dying, well, retry=retry))

    await served(gateway)

    assert ["backend-0:reset_before_answer", "backend-1:200"] in await attempts(gateway, 2)


async def test_a_head_without_a_body_falls_back_to_another_pool(new_gateway, upstreams):
    silent, well = await upstreams(stalls()), await upstreams(replies(STREAM))
    made = settings(
        pools={
            name: {"backends": [{"name": name, "url": f"http://127.0.0.1:{server.port}"}]}
            for name, server in (("one", silent), ("two", well))
        },
        models=[{"id": "m", "pool": "one", "fallback": ["n"]}, {"id": "n", "pool": "two"}],
        routing={"default_pool": "", "timeouts": {"first_byte": "2s"}},
    )
    del made["backends"]
    gateway = new_gateway(made)

    await served(gateway, 1)

    assert await attempts(gateway, 1) == [["one:first_byte_timeout", "two:200"]]


async def test_a_head_without_a_body_gets_company(new_gateway, upstreams):
    silent, well = await upstreams(stalls()), await upstreams(replies(STREAM))
    gateway = new_gateway(two(silent, well, hedge={"enabled": True, "after": "100ms", "budget": 1.0}))

    await served(gateway)

    assert ["backend-0:outrun", "backend-1:200"] in await attempts(gateway, 2)
    await eventually(lambda: silent.open_connections == 0, "the silent one is closed")


async def test_who_comes_second_says_nothing_in_the_others_answer(new_gateway, upstreams):
    """Both speak in the same moment: the gateway, held for it, finds what they said at once."""
    both = await upstreams(replies(b"")), await upstreams(replies(b""))
    gateway = new_gateway(two(*both, hedge={"enabled": True, "after": "50ms", "budget": 1.0}))

    async with await RawClient.connect(gateway.port) as client:
        for at in range(20):
            client.write(post(body=CHAT))
            asked = [(await upstream.wait_requests(at + 1))[-1] for upstream in both]
            gateway.signal(signal.SIGSTOP)
            for upstream, request in zip(both, asked, strict=True):
                connection = upstream.connections[request.connection]
                connection.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM)
            gateway.signal(signal.SIGCONT)
            response = await client.read_response(b"POST")

            assert (response.status, response.is_complete) == (200, True)
            assert response.body == b"data: {}\n\ndata: [DONE]\n\n"
        assert client.unread == b""


async def test_what_died_behind_its_head_is_not_sent_twice_unless_that_is_written(new_gateway, upstreams):
    dying, well = await upstreams(dies("reset")), await upstreams(replies(STREAM))
    retry = {"enabled": True, "retry_on": ["first_byte_timeout", 503], "budget": 1.0}
    gateway = new_gateway(two(dying, well, retry=retry))

    answers = [await ask(gateway.port, post(body=CHAT)) for _ in range(2)]

    assert sorted(response.status for response in answers) == [200, 502]
    assert (len(dying.requests), len(well.requests)) == (1, 1)


@pytest.mark.parametrize("model", [{}, {"sse_keep_alive": "100ms"}])
async def test_a_head_that_nothing_can_follow_is_passed_on_at_once(new_gateway, upstreams, model):
    """Nor is it held where comment lines are wanted behind it while the server is silent."""
    silent = await upstreams(stalls())
    retry = {"enabled": bool(model), "retry_on": ["first_byte_timeout"]}
    gateway = new_gateway(settings(silent.port, models=[{"id": "m", **model}], routing={"retry": retry}))

    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=CHAT))
        head = await client.read_head()
        if model:
            await client.read_until(b": keep-alive\n\n")

    assert head.get(b"content-type") == b"text/event-stream"


async def test_answers_without_a_body_are_answers(new_gateway, upstreams):
    upstream = await upstreams(replies(b"HTTP/1.1 204 No Content\r\n\r\n"))
    retry = {"enabled": True, "retry_on": ["first_byte_timeout", "no_answer"], "budget": 1.0}
    gateway = new_gateway(settings(upstream.port, routing={"retry": retry}))

    assert (await ask(gateway.port, post(body=CHAT))).status == 204
    upstream.on_request = replies(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await ask(gateway.port, post(body=CHAT))).status == 200
    upstream.on_request = replies(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert (await ask(gateway.port, post(body=CHAT))).end == "complete"
    upstream.on_request = replies(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    head = b"HEAD /v1/x HTTP/1.1\r\nHost: g\r\n\r\n"
    async with await RawClient.connect(gateway.port) as client:
        assert (await client.ask(head)).status == 200
    assert len(upstream.requests) == 4


async def test_a_silent_pool_falls_back_by_wildcard(new_gateway, upstreams):
    """By the pools of `routing.fallback`, for the models that are meant."""
    silent, spare = await upstreams(stalls_at_once), await upstreams()
    made = settings(
        silent.port,
        routing={
            **IN_TURN,
            "timeouts": {"first_byte": "500ms"},
            "fallback": [{"models": ["lab-*"], "pools": ["spare"]}],
        },
    )
    made["pools"] = {"spare": {"backends": [{"name": "spare", "url": f"http://127.0.0.1:{spare.port}"}]}}
    gateway = new_gateway(made)

    meant = await ask(gateway.port, post(body=CHAT.replace(b'"m"', b'"lab-7"')), patience=60.0)
    other = await ask(gateway.port, post(body=CHAT), patience=60.0)

    assert (meant.status, other.status) == (200, 504)
    assert (await attempts(gateway, 1))[0] == ["backend-0:first_byte_timeout", "spare:200"]
    assert len(spare.requests) == 1


async def stalls_at_once(connection, request):
    await connection.stall()


# -- how long to wait ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("asks", "seconds"), [(b"Retry-After: 1", 1.0), (b"retry-after-ms: 700", 0.7)], ids=["seconds", "ms"]
)
async def test_a_server_that_asks_for_time_gets_it(new_gateway, upstreams, asks, seconds):
    turns = iter([answer(b"{}", asks, status=b"503 Busy"), answer()])

    async def script(connection, request):
        connection.write(next(turns))

    alone = await upstreams(script)
    retry = {"enabled": True, "initial_wait": "1ms", "budget": 1.0}
    gateway = new_gateway(settings(alone.port, routing={**IN_TURN, "retry": retry}))

    response = await ask(gateway.port, post(body=CHAT), patience=60.0)

    first, second = alone.requests
    assert response.status == 200
    assert second.at - first.at >= seconds
    assert await attempts(gateway, 1) == [["backend-0:503", "backend-0:200"]]


async def test_who_asks_for_too_much_time_is_passed_on(new_gateway, upstreams):
    alone = await upstreams(replies(answer(b"{}", b"Retry-After: 11", status=b"503 Busy")))
    retry = {"enabled": True, "max_wait": "10s", "budget": 1.0}
    gateway = new_gateway(settings(alone.port, routing={**IN_TURN, "retry": retry}))

    response = await ask(gateway.port, post(body=CHAT))

    assert (response.status, response.get(b"retry-after")) == (503, b"11")
    assert len(alone.requests) == 1
