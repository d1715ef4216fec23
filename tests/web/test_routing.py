"""Models, pools, retries, fallbacks, queues and sessions, through a running gateway."""

import asyncio
import json
import re
import signal
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, get, post, sse_head


def chat(model="m", **fields):
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def held_by(gate: asyncio.Event):
    """Answers once the gate is open."""

    async def script(connection, request):
        await gate.wait()
        connection.write(answer())

    return script


@pytest.fixture
async def upstreams():
    """Makes scripted upstreams; `make(script)` returns one that listens."""
    async with AsyncExitStack() as stack:

        async def make(script=None, port=0):
            return await stack.enter_async_context(ScriptedUpstream(script, port=port))

        yield make


def without_backends(**changes):
    """A configuration with pools of its own names only."""
    configuration = settings(routing={"default_pool": ""}, **changes)
    del configuration["backends"]
    return configuration


def pool(*upstreams, **options):
    backends = [{"name": f"b{n}", "url": f"http://127.0.0.1:{u.port}"} for n, u in enumerate(upstreams)]
    return {"backends": backends, **options}


async def test_a_model_leads_to_its_pool_under_its_upstream_name(new_gateway, upstreams):
    one, two = await upstreams(), await upstreams()
    models = [
        {"id": "alpha", "pool": "one", "upstream_model": "org/Alpha-7B", "aliases": ["a"]},
        {"id": "beta", "pool": "two"},
    ]
    gateway = new_gateway(without_backends(pools={"one": pool(one), "two": pool(two)}, models=models))
    body = b'{ "x" : 1 , "model" : "alpha" , "messages":[ ] }'

    await ask(gateway.port, post(body=body))
    await ask(gateway.port, post(body=body.replace(b"alpha", b"a")))
    await ask(gateway.port, post(body=body.replace(b"alpha", b"beta")))
    unknown = await ask(gateway.port, post(body=body.replace(b"alpha", b"gamma")))

    expected = body.replace(b"alpha", b"org/Alpha-7B")
    assert [r.body for r in one.requests if r.method == b"POST"] == [expected, expected]
    assert [r.body for r in two.requests if r.method == b"POST"] == [body.replace(b"alpha", b"beta")]
    assert unknown.status == 404
    assert json.loads(unknown.body)["error"]["code"] == "model_not_found"


async def test_a_model_named_twice_is_refused_where_the_name_matters(new_gateway, upstreams):
    upstream = await upstreams()
    gateway = new_gateway(settings(upstream.port, models=[{"id": "a"}, {"id": "b"}]))

    for body in (b'{"model":"a","model":"b"}', b'{"model":"a","mod\\u0065l":"b"}'):
        assert (await ask(gateway.port, post(body=body))).status == 400

    assert upstream.requests == []


async def test_a_dead_backend_costs_no_request(new_gateway, upstreams):
    alive = await upstreams()
    gateway = new_gateway(settings(free_port(), alive.port, routing={"load_balance": "round_robin"}))

    answers = [await ask(gateway.port, post(body=chat())) for _ in range(10)]

    assert {response.status for response in answers} == {200}
    assert len(alive.requests) == 10


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_name_that_no_resolver_takes_is_a_backend_that_cannot_be_reached(
    new_gateway, upstreams, host
):
    alive = await upstreams()
    routing = {"load_balance": "round_robin", "breaker": {"enabled": False}}
    odd = {"url": f"http://{host}:8000"}
    alone = new_gateway(settings(backends=[odd], routing=routing))
    beside = new_gateway(settings(backends=[odd, {"url": f"http://127.0.0.1:{alive.port}"}], routing=routing))

    refused = await ask(alone.port, post(body=chat()))
    served = [(await ask(beside.port, post(body=chat()))).status for _ in range(2)]

    assert refused.status == 502
    assert served == [200, 200]


async def test_an_overloaded_backend_is_left_for_another_only_where_that_is_configured(
    new_gateway, upstreams
):
    busy = await upstreams(replies(answer(b"{}", status=b"503 Busy")))
    free = await upstreams()
    routing = {"load_balance": "round_robin", "affinity": {"enabled": False}, "breaker": {"enabled": False}}
    retrying = {**routing, "retry": {"enabled": True, "initial_wait": "10ms", "budget": 1.0}}
    plain = new_gateway(settings(busy.port, free.port, routing={**routing, "retry": {"enabled": False}}))
    eager = new_gateway(settings(busy.port, free.port, routing=retrying))

    plainly = Counter([(await ask(plain.port, post(body=chat()))).status for _ in range(6)])
    eagerly = Counter([(await ask(eager.port, post(body=chat()))).status for _ in range(6)])

    assert plainly == {503: 3, 200: 3}
    assert eagerly == {200: 6}


async def test_a_model_falls_back_to_another_pool(new_gateway, upstreams):
    broken = await upstreams(replies(answer(b"{}", status=b"503 Busy")))
    spare = await upstreams()
    models = [
        {"id": "big", "pool": "gone", "fallback": ["small"]},
        {"id": "mid", "pool": "busy", "fallback": ["small"]},
        {"id": "small", "pool": "spare", "upstream_model": "tiny"},
    ]
    pools = {
        "gone": {"backends": [{"url": f"http://127.0.0.1:{free_port()}"}]},
        "busy": pool(broken),
        "spare": pool(spare),
    }
    gateway = new_gateway(without_backends(pools=pools, models=models))

    first = await ask(gateway.port, post(body=chat("big")))
    second = await ask(gateway.port, post(body=chat("mid")))

    assert (first.status, second.status) == (200, 200)
    assert [json.loads(request.body)["model"] for request in spare.requests] == ["tiny", "tiny"]


async def test_a_session_stays_where_it_began(new_gateway, upstreams):
    backends = [await upstreams() for _ in range(4)]
    gateway = new_gateway(settings(*(backend.port for backend in backends)))

    for _ in range(5):
        for session in range(8):
            await ask(
                gateway.port,
                post(b"/v1/chat/completions?s=%d" % session, chat(), b"x-session-id: s%d" % session),
            )

    homes = [
        {
            n
            for n, backend in enumerate(backends)
            if any(r.target.endswith(b"s=%d" % session) for r in backend.requests)
        }
        for session in range(8)
    ]
    assert all(len(home) == 1 for home in homes), homes
    assert len(set().union(*homes)) > 1


async def test_a_busy_pool_makes_its_clients_wait_in_turn(new_gateway, upstreams):
    gate = asyncio.Event()
    upstream = await upstreams(held_by(gate))
    backend = {"name": "b", "url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": 1}
    gateway = new_gateway(
        settings(backends=[backend], routing={"queue": {"max_waiting": 1, "max_wait": "10s"}})
    )
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(3)]
        clients[0].write(post(body=chat()))
        await upstream.wait_requests(1)
        clients[1].write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        refused = await clients[2].ask(post(body=chat()))
        gate.set()
        served = [await client.read_response() for client in clients[:2]]

    assert refused.status == 503
    assert int(refused.get(b"retry-after")) >= 1
    assert [response.status for response in served] == [200, 200]
    assert served[0].get(b"x-llmproxy-queue-position") is None
    assert served[1].get(b"x-llmproxy-queue-position") == b"1"


@pytest.mark.parametrize("waits", ["for too long", "behind too many"])
async def test_a_queue_without_a_place_in_time_is_left_for_another_pool(new_gateway, upstreams, waits):
    async def stalls(connection, request):
        await connection.stall()

    slow, spare = await upstreams(stalls), await upstreams()
    max_wait = "100ms" if waits == "for too long" else "10m"
    bounded = {"url": f"http://127.0.0.1:{slow.port}", "max_in_flight": 1}
    pools = {
        "busy": {"backends": [bounded], "queue": {"max_waiting": 1, "max_wait": max_wait}},
        "spare": pool(spare),
    }
    models = [{"id": "big", "pool": "busy", "fallback": ["small"]}, {"id": "small", "pool": "spare"}]
    gateway = new_gateway(without_backends(pools=pools, models=models))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(3)]
        clients[0].write(post(body=chat("big")))
        await slow.wait_requests(1)
        if waits == "behind too many":
            clients[1].write(post(body=chat("big")))
            await eventually(lambda: _waits(gateway, 1, "busy"), "one waits")
        response = await clients[2].ask(post(body=chat("big")))

    assert response.status == 200
    assert len(spare.requests) == 1


@pytest.mark.parametrize("bound", [1, None])
async def test_who_waits_goes_to_a_server_that_is_found_meanwhile(new_gateway, upstreams, bound):
    """Nobody comes and nobody leaves; the pool alone has changed."""

    async def stalls(connection, request):
        await connection.stall()

    busy, fresh = await upstreams(stalls), await upstreams()
    found = [{"url": f"http://127.0.0.1:{busy.port}", "max_in_flight": 1}]

    async def lists(connection, request):
        connection.write(answer(json.dumps(found).encode()))

    source = await upstreams(lists)
    where = {"type": "http", "url": f"http://127.0.0.1:{source.port}/", "interval": "100ms"}
    routing = {"queue": {"max_waiting": 5, "max_wait": "10m"}, "timeouts": {"first_byte": "10m"}}
    made = settings(discovery={"sources": [where]}, routing=routing)
    del made["backends"]
    gateway = await asyncio.to_thread(new_gateway, made)
    async with (
        await RawClient.connect(gateway.port) as first,
        await RawClient.connect(gateway.port) as second,
    ):
        first.write(post(body=chat()))
        await busy.wait_requests(1)
        second.write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        found.append({"url": f"http://127.0.0.1:{fresh.port}", "max_in_flight": bound})

        assert (await second.read_response(patience=30.0)).status == 200

    assert len(fresh.requests) == 1


async def test_a_second_attempt_takes_a_place(new_gateway, upstreams):
    """Two servers for one request each: while one has both, the next one waits."""
    gate = asyncio.Event()

    async def script(connection, request):
        await gate.wait()
        connection.write(answer())

    both = [await upstreams(script) for _ in range(2)]
    backends = [{"url": f"http://127.0.0.1:{one.port}", "max_in_flight": 1} for one in both]
    routing = {"queue": {"max_waiting": 5}, "hedge": {"after": "50ms", "budget": 1.0}}
    gateway = new_gateway(settings(backends=backends, routing=routing))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(2)]
        clients[0].write(post(body=chat()))
        for one in both:
            await one.wait_requests(1)
        clients[1].write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        gate.set()
        served = [await client.read_response() for client in clients]

    assert [response.status for response in served] == [200, 200]


async def test_a_reload_keeps_the_queue(new_gateway, upstreams):
    """What an earlier generation has running takes places in the one that follows."""
    gate = asyncio.Event()
    upstream = await upstreams(held_by(gate))
    backend = {"name": "b", "url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": 1}
    gateway = new_gateway(settings(backends=[backend], routing={"queue": {"max_waiting": 5}}))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(3)]
        clients[0].write(post(body=chat()))
        await upstream.wait_requests(1)
        clients[1].write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        await reloaded(gateway, 2)
        clients[2].write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 2), "two wait")
        gate.set()
        served = [await client.read_response() for client in clients]

    assert [response.status for response in served] == [200, 200, 200]


async def test_who_waits_during_a_reload_gets_the_places_that_it_brings(new_gateway, upstreams):
    async def script(connection, request):
        if len(upstream.requests) == 1:
            await connection.stall()
        connection.write(answer())

    def bounded(places):
        backend = {"name": "b", "url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": places}
        queue = {"max_waiting": 5, "max_wait": "10m"}
        return settings(backends=[backend], routing={"queue": queue, "timeouts": {"first_byte": "10m"}})

    upstream = await upstreams(script)
    gateway = new_gateway(bounded(1))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(3)]
        clients[0].write(post(body=chat()))
        await upstream.wait_requests(1)
        clients[1].write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        gateway.write(bounded(2))
        await reloaded(gateway, 2)
        clients[2].write(post(body=chat()))
        served = [(await client.read_response(patience=30.0)).status for client in clients[1:]]

    assert served == [200, 200]


async def test_a_client_that_leaves_the_queue_is_gone_at_once(new_gateway, upstreams):
    gate = asyncio.Event()
    upstream = await upstreams(held_by(gate))
    backend = {"name": "b", "url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": 1}
    gateway = new_gateway(settings(backends=[backend], routing={"queue": {"max_waiting": 5}}))
    async with (
        await RawClient.connect(gateway.port) as first,
        await RawClient.connect(gateway.port) as second,
    ):
        first.write(post(body=chat()))
        await upstream.wait_requests(1)
        second.write(post(body=chat()))
        await eventually(lambda: _waits(gateway, 1), "one waits")
        second.close()
        await eventually(lambda: _waits(gateway, 0), "nobody waits")
        gate.set()
        assert (await first.read_response()).status == 200

    assert len(upstream.requests) == 1


async def test_next_to_a_key_with_fifty_requests_another_gets_the_next_slot_each_time(new_gateway, upstreams):
    may_end = asyncio.Semaphore(0)

    async def script(connection, request):
        await may_end.acquire()
        connection.write(answer())

    upstream = await upstreams(script)
    keys = [{"key": "sk-many-0123456789"}, {"key": "sk-one-0123456789"}]
    gateway = new_gateway(
        settings(
            backends=[{"name": "b", "url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": 4}],
            auth={"enabled": True, "pipeline": [{"type": "static", "keys": keys}]},
            routing={"queue": {"max_waiting": 100, "max_wait": "10m"}},
        )
    )
    many, one = (
        post(b"/v1/chat/completions", body, b"Authorization: Bearer " + key["key"].encode())
        for body, key in zip((b'{"model":"many"}', b'{"model":"one"}'), keys, strict=True)
    )
    async with AsyncExitStack() as stack:
        for number in range(50):
            rival = await stack.enter_async_context(await RawClient.connect(gateway.port))
            rival.write(many)
            if number < 4:
                await upstream.wait_requests(number + 1)
        await eventually(lambda: _waits(gateway, 46), "46 wait")

        client = await stack.enter_async_context(await RawClient.connect(gateway.port))
        for turn in range(5):
            client.write(one)
            await eventually(lambda turn=turn: _waits(gateway, 47 - turn * 4), "it waits with the others")
            before = len(upstream.requests)
            may_end.release()
            await upstream.wait_requests(before + 1)
            assert upstream.requests[before].body == b'{"model":"one"}'
            for _ in range(4):  # those that began before it, and at last it
                may_end.release()
            assert (await client.read_response()).status == 200
            await upstream.wait_requests(before + 5)


async def _waits(gateway, number, pool="default"):
    page = await ask(gateway.port, get(b"/metrics"))
    return b'llmproxy_queue_depth{pool="%b"} %d' % (pool.encode(), number) in page.body


# -- whose fault it is ------------------------------------------------------

STRICT = {
    "load_balance": "round_robin",
    "affinity": {"enabled": False},
    "breaker": {"failures": 2, "open_for": "60s"},
}
TOO_LONG = b'{"error":{"message":"This model\'s maximum context length is 4096 tokens."}}'


@pytest.mark.parametrize("retry", [{"enabled": False}, {"retry_on": ["5xx"], "budget": 1.0}])
@pytest.mark.parametrize("cut", [b"", b"maximum context"])
async def test_a_prompt_that_is_too_long_is_no_failure_of_the_server(new_gateway, upstreams, retry, cut):
    overflow = answer(TOO_LONG, status=b"500 Internal Server Error")
    head, _, tail = overflow.partition(cut) if cut else (overflow, b"", b"")

    async def script(connection, request):
        connection.write(head)
        if cut:
            await asyncio.sleep(0.02)  # so that it comes in two pieces
            connection.write(cut + tail)

    one, two = await upstreams(script), await upstreams(script)
    gateway = new_gateway(settings(one.port, two.port, routing={**STRICT, "retry": retry}))

    answers = [await ask(gateway.port, post(body=chat())) for _ in range(8)]

    assert {(response.status, response.body) for response in answers} == {(500, TOO_LONG)}
    assert (len(one.requests), len(two.requests)) == (4, 4)


async def test_an_error_without_a_length_is_relayed_whole(new_gateway, upstreams):
    body = b"x" * 100_000
    head = b"HTTP/1.1 500 Oh\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    upstream = await upstreams(replies(head + body, then="fin"))
    gateway = new_gateway(settings(upstream.port))

    response = await ask(gateway.port, post(body=chat()))

    assert (response.status, response.body, response.end) == (500, body, "complete")


async def test_a_kept_connection_that_ended_is_nobodys_failure(new_gateway, upstreams):
    """One failure would open this breaker, and the pool has nobody else."""
    upstream = await upstreams()
    strict = {"failures": 1, "open_for": "60s"}
    gateway = new_gateway(
        settings(upstream.port, routing={"breaker": strict, "timeouts": {"keep_alive": "60s"}})
    )
    assert (await ask(gateway.port, post(body=chat()))).status == 200
    kept = upstream.connections[0]
    kept.close()

    assert (await ask(gateway.port, post(body=chat()))).status == 200

    page = await ask(gateway.port, get(b"/metrics"))
    assert b'llmproxy_upstream_breaker_state{backend="backend-0"} 0' in page.body


async def test_the_first_byte_of_a_good_stream_ends_a_servers_probation(new_gateway, upstreams):
    async def stream(connection, request):
        connection.write(sse_head() + chunk(b"data: {}\n\n"))
        await connection.stall()

    upstream = await upstreams(replies(b"", then="rst"))
    breaker = {"failures": 1, "open_for": "100ms", "slow_start": "0s"}
    gateway = new_gateway(settings(upstream.port, routing={"breaker": breaker}))
    assert (await ask(gateway.port, post(body=chat()))).status == 502
    assert await _breaker_is(gateway, 2)
    upstream.on_request = stream
    await asyncio.sleep(0.15)  # the breaker's own time has to pass

    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await client.read_head()
        await eventually(lambda: _breaker_is(gateway, 0), "the breaker is closed while the stream runs")


async def _breaker_is(gateway, state):
    page = await ask(gateway.port, get(b"/metrics"))
    return b'llmproxy_upstream_breaker_state{backend="backend-0"} %d' % state in page.body


async def test_sessions_are_remembered_across_a_reload(new_gateway, upstreams):
    """A session that was moved off a full server stays where its cache now is."""
    backends = [await upstreams() for _ in range(4)]
    made = settings(*(backend.port for backend in backends))
    gateway = new_gateway(made)
    names = [b"x-session-id: s%d" % number for number in range(16)]

    async def homes():
        found = {}
        for name in names:
            before = [len(backend.requests) for backend in backends]
            assert (await ask(gateway.port, post(b"/v1/chat/completions", chat(), name))).status == 200
            (found[name],) = [n for n, b in enumerate(backends) if len(b.requests) > before[n]]
        return found

    first = await homes()
    # One leaves, its sessions move; it comes back, and they stay where they are.
    gateway.write({**made, "backends": made["backends"][1:]})
    await reloaded(gateway, 2)
    moved = await homes()
    gateway.write(made)
    await reloaded(gateway, 3)

    assert 0 in first.values()
    assert 0 not in moved.values()
    assert await homes() == moved


async def reloaded(gateway, generation):
    gateway.signal(signal.SIGHUP)

    async def is_there():
        page = await ask(gateway.port, get(b"/metrics"))
        return b"llmproxy_config_generation %d" % generation in page.body

    await eventually(is_there, "the new configuration is served")


# -- several keys -----------------------------------------------------------


def keyed(upstream, *keys, **routing):
    made = settings(upstream.port, routing=routing)
    made["backends"][0]["api_keys"] = list(keys)
    return made


def keys_seen(upstream):
    return [request.head.get(b"authorization") for request in upstream.requests]


def accepts(*good, refusal=b"429 Slow Down"):
    """Answers requests with a good key, and refuses the others."""

    async def script(connection, request):
        is_good = request.head.get(b"authorization") in [b"Bearer " + key for key in good]
        connection.write(answer() if is_good else answer(b"{}", b"Retry-After: 60", status=refusal))

    return script


@pytest.mark.parametrize("refusal", [b"401 No", b"403 No", b"429 Slow Down"])
async def test_the_next_key_is_tried_when_one_is_refused(new_gateway, upstreams, refusal):
    upstream = await upstreams(accepts(b"key-three", refusal=refusal))
    strict = {"failures": 1, "open_for": "60s"}  # no refusal of a key may take the server out
    gateway = new_gateway(keyed(upstream, "key-one", "key-two", "key-three", breaker=strict))

    answers = [await ask(gateway.port, post(b"/v1/x", chat(), b"Authorization: Bearer c")) for _ in range(3)]

    assert [response.status for response in answers] == [200, 200, 200]
    in_order = [b"Bearer key-one", b"Bearer key-two", b"Bearer key-three"]
    assert keys_seen(upstream) == [*in_order, in_order[2], in_order[2]]
    assert await _breaker_is(gateway, 0)


async def test_a_refusal_of_every_key_is_passed_on(new_gateway, upstreams):
    upstream = await upstreams(accepts(refusal=b"401 No"))
    gateway = new_gateway(keyed(upstream, "one", "two"))

    response = await ask(gateway.port, post(body=chat()))

    assert (response.status, response.body) == (401, b"{}")
    assert keys_seen(upstream) == [b"Bearer one", b"Bearer two"]


async def test_another_server_is_asked_once_all_keys_of_one_are_throttled(new_gateway, upstreams):
    throttled, other = await upstreams(accepts()), await upstreams()
    made = settings(throttled.port, other.port, routing={"retry": {"enabled": True}})
    made["backends"][0]["api_keys"] = ["one", "two"]
    made["backends"][0]["weight"] = 1000  # so that it is asked first
    gateway = new_gateway(made)

    assert (await ask(gateway.port, post(body=chat()))).status == 200

    assert keys_seen(throttled) == [b"Bearer one", b"Bearer two"]
    assert len(other.requests) == 1


# -- what goes on beside the requests ---------------------------------------


async def test_engines_that_say_they_are_full_are_passed_over(new_gateway, upstreams):
    def engine(waiting):
        async def script(connection, request):
            if request.target == b"/metrics":
                text = b"vllm:num_requests_running 4.0\nvllm:num_requests_waiting %d\n" % waiting
                connection.write(answer(text, kind=b"text/plain"))
            else:
                connection.write(answer())

        return script

    servers = [await upstreams(engine(30)), await upstreams(engine(0))]
    gateway = new_gateway(settings(*(s.port for s in servers), routing={"load_balance": "engine_load"}))
    for server in servers:
        await server.wait_requests(1)

    async def chats():
        before = [_chats(server) for server in servers]
        for n in range(10):
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": str(n)}]}).encode()
            assert (await ask(gateway.port, post(body=body))).status == 200
        return [_chats(server) - number for server, number in zip(servers, before, strict=True)]

    assert await chats() == [0, 10]
    gateway.write({**settings(*(s.port for s in servers), routing={"load_balance": "round_robin"})})
    await reloaded(gateway, 2)
    assert await chats() == [5, 5]


def _chats(server):
    return sum(request.method == b"POST" for request in server.requests)


async def test_access_tokens_are_fetched_and_replace_the_clients_key(new_gateway, upstreams, tmp_path):
    async def grants(connection, request):
        assert b"refresh_token=the-refresh-token" in request.body
        connection.write(answer(b'{"access_token":"fresh-token","expires_in":3600}'))

    upstream, issuer = await upstreams(), await upstreams()
    issuer.on_request = replies(answer(b"{}", status=b"503 Busy"))
    file = tmp_path / "refresh-token"
    file.touch(0o600)
    file.write_text("the-refresh-token")
    made = settings(upstream.port)
    made["backends"][0]["oauth"] = {
        "token_url": f"http://127.0.0.1:{issuer.port}/token",
        "client_id": "us",
        "refresh_token_file": str(file),
    }
    gateway = new_gateway(made)
    await issuer.wait_requests(1)
    too_early = await ask(gateway.port, post(body=chat()))
    issuer.on_request = grants
    await issuer.wait_requests(2, patience=20.0)

    async def is_served():
        return (await ask(gateway.port, post(b"/v1/x", chat(), b"Authorization: Bearer c"))).status == 200

    await eventually(is_served, "there is a token")
    await reloaded(gateway, 2)
    assert await is_served()

    assert too_early.status == 503
    assert set(keys_seen(upstream)) == {b"Bearer fresh-token"}
    assert len(issuer.requests) == 2
    assert "fresh-token" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def listed(*upstreams):
    urls = [f"http://127.0.0.1:{upstream.port}" for upstream in upstreams]
    return replies(answer(json.dumps(urls).encode()))


def discovering(inventory, **more):
    source = {"type": "http", "url": f"http://127.0.0.1:{inventory.port}/list", "interval": "100ms"}
    made = settings(discovery={"sources": [source], **more})
    del made["backends"]
    return made


async def test_backends_come_and_go_without_a_restart_and_streams_run_on(new_gateway, upstreams):
    released = asyncio.Event()

    async def streams(connection, request):
        connection.write(sse_head() + chunk(b"data: 1\n\n"))
        await released.wait()
        connection.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    old, new = await upstreams(streams), await upstreams()
    inventory = await upstreams(listed(old))
    gateway = await asyncio.to_thread(new_gateway, discovering(inventory))  # it waits for the first look

    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await old.wait_requests(1)
        inventory.on_request = listed(new)

        async def is_replaced():
            return await _known_backends(gateway) == [b'backend="127.0.0.1:%d"' % new.port]

        await eventually(is_replaced, "the new one has taken the old one's place")
        answers = [await ask(gateway.port, post(body=chat())) for _ in range(4)]
        released.set()
        streamed = await client.read_response()

    assert [response.status for response in answers] == [200] * 4
    assert (len(old.requests), _chats(new)) == (1, 4)
    assert (streamed.status, streamed.end) == (200, "complete")
    assert streamed.body == b"data: 1\n\ndata: [DONE]\n\n"


async def test_a_reload_keeps_what_was_found_and_can_look_elsewhere(new_gateway, upstreams):
    one, two = await upstreams(), await upstreams()
    first, second = await upstreams(listed(one)), await upstreams(listed(two))
    gateway = await asyncio.to_thread(new_gateway, discovering(first))  # it waits for the first look
    assert (await ask(gateway.port, post(body=chat()))).status == 200
    first.on_request = replies(answer(b"{}", status=b"500 Oh"))  # what it said last goes on counting

    await reloaded(gateway, 2)
    assert (await ask(gateway.port, post(body=chat()))).status == 200
    gateway.write(discovering(second))
    await reloaded(gateway, 3)
    assert (await ask(gateway.port, post(body=chat()))).status == 200

    assert (_chats(one), _chats(two)) == (2, 1)


async def _known_backends(gateway):
    page = await ask(gateway.port, get(b"/metrics"))
    return re.findall(rb"^llmproxy_upstream_up\{(.*?)\}", page.body, re.MULTILINE)


# -- two attempts side by side ----------------------------------------------


def hedging(*upstreams, budget=1.0, **routing):
    hedge = {"after": "100ms", "budget": budget}
    return settings(*(u.port for u in upstreams), routing={**STRICT, "hedge": hedge, **routing})


async def silent(connection, request):
    await connection.stall()


async def attempts_in(gateway):
    """The attempts in the access lines, once there is one that had several."""

    def found():
        lines = [json.loads(line) for line in gateway.log_lines() if '"attempts"' in line]
        return [line["attempts"] for line in lines if line["attempts"]]

    await eventually(lambda: bool(found()), "an access line has several attempts")
    return found()


async def test_a_silent_server_gets_company_and_who_speaks_first_is_heard(new_gateway, upstreams):
    wedged, lively = await upstreams(silent), await upstreams()
    gateway = new_gateway(hedging(wedged, lively))

    answers = [await ask(gateway.port, post(body=chat())) for _ in range(2)]

    assert [response.status for response in answers] == [200, 200]
    assert await attempts_in(gateway) == [["backend-0:outrun", "backend-1:200"]]
    assert (len(wedged.requests), len(lively.requests)) == (1, 2)
    await eventually(lambda: wedged.open_connections == 0, "the slower one is closed")


async def test_the_first_attempt_may_still_win(new_gateway, upstreams):
    released = asyncio.Event()

    async def late(connection, request):
        await released.wait()
        connection.write(sse_head() + chunk(b"data: first\n\n") + b"0\r\n\r\n")

    slow, wedged = await upstreams(late), await upstreams(silent)
    gateway = new_gateway(hedging(slow, wedged))
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await wedged.wait_requests(1)
        await slow.wait_requests(1)
        released.set()
        response = await client.read_response()

    assert (response.status, response.body, response.end) == (200, b"data: first\n\n", "complete")
    (attempts,) = await attempts_in(gateway)
    assert sorted(attempts) == ["backend-0:200", "backend-1:outrun"]
    await eventually(lambda: wedged.open_connections == 0, "the slower one is closed")


async def test_company_that_fails_leaves_the_request_to_the_first(new_gateway, upstreams):
    released = asyncio.Event()

    async def late(connection, request):
        await released.wait()
        connection.write(answer())

    slow, bad = await upstreams(late), await upstreams(replies(b"", then="rst"))
    made = hedging(slow, bad, load_balance="weighted")
    made["backends"][0]["weight"] = 1000  # so that it is asked first
    gateway = new_gateway(made)

    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await bad.wait_requests(1)
        await eventually(lambda: _in_flight(gateway, "backend-1", 0), "the second attempt has failed")
        released.set()
        response = await client.read_response()

    assert response.status == 200
    assert await attempts_in(gateway) == [["backend-1:reset_before_answer", "backend-0:200"]]


async def test_an_answer_that_has_begun_is_never_hedged(new_gateway, upstreams):
    released = asyncio.Event()

    async def slow_stream(connection, request):
        connection.write(sse_head() + chunk(b": queued\n\n"))
        await released.wait()
        connection.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    one, two = await upstreams(slow_stream), await upstreams(slow_stream)
    gateway = new_gateway(hedging(one, two))
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await asyncio.sleep(0.4)  # four times the silence that starts another
        released.set()
        response = await client.read_response()

    assert response.status == 200
    assert len(one.requests) + len(two.requests) == 1


async def test_only_a_share_of_requests_is_hedged(new_gateway, upstreams):
    async def late(connection, request):
        await asyncio.sleep(0.3)
        connection.write(answer())

    one, two = await upstreams(late), await upstreams(late)
    gateway = new_gateway(hedging(one, two, budget=0.01))

    answers = [await ask(gateway.port, post(body=chat())) for _ in range(4)]

    assert [response.status for response in answers] == [200] * 4
    assert len(one.requests) + len(two.requests) == 5  # one a minute is always allowed


async def test_a_client_that_leaves_ends_both_attempts(new_gateway, upstreams):
    one, two = await upstreams(silent), await upstreams(silent)
    gateway = new_gateway(hedging(one, two))
    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=chat()))
        await one.wait_requests(1)
        await two.wait_requests(1)
    await eventually(lambda: one.open_connections + two.open_connections == 0, "both are closed")

    assert [sorted(attempts) for attempts in await attempts_in(gateway)] == [
        ["backend-0:cancelled", "backend-1:cancelled"]
    ]


async def _in_flight(gateway, backend, number):
    page = await ask(gateway.port, get(b"/metrics"))
    return f'llmproxy_upstream_in_flight{{backend="{backend}"}} {number}'.encode() in page.body


async def test_what_may_have_run_is_not_sent_to_the_fallback(new_gateway, upstreams):
    cut = await upstreams(replies(answer(b"x" * 100)[:-90], "fin"))
    spare = await upstreams()
    tools = [{"kind": "tool_calls", "format": "hermes"}]
    models = [
        {"id": "m", "pool": "cut", "fallback": ["spare"], "adapters": tools},
        {"id": "spare", "pool": "spare"},
    ]
    gateway = new_gateway(without_backends(pools={"cut": pool(cut), "spare": pool(spare)}, models=models))
    tool = {"type": "function", "function": {"name": "t"}}

    response = await ask(gateway.port, post(body=chat("m", tools=[tool])))

    assert (response.status, len(cut.requests), len(spare.requests)) == (502, 1, 0)


async def test_a_fallback_is_rewritten_as_its_own_model_wants(new_gateway, upstreams):
    spare = await upstreams()
    models = [
        {"id": "m", "pool": "gone", "fallback": ["spare"]},
        {"id": "spare", "pool": "spare", "adapters": [{"kind": "tool_calls", "format": "hermes"}]},
    ]
    gone = {"backends": [{"url": f"http://127.0.0.1:{free_port()}"}]}
    gateway = new_gateway(without_backends(pools={"gone": gone, "spare": pool(spare)}, models=models))
    tool = {"type": "function", "function": {"name": "t"}}

    response = await ask(gateway.port, post(body=chat("m", tools=[tool])))

    sent = json.loads(spare.requests[0].body)
    assert (response.status, sent["tool_choice"], sent["model"]) == (200, "none", "spare")
