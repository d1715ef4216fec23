"""A client may leave, dawdle or stop reading at any moment; the upstream and the others do not pay for it."""

import asyncio
import contextlib
import random
import signal
from statistics import median
from time import monotonic

import pytest
from kit.client import Ended, RawClient, Silent, ask, outcome
from kit.eventually import eventually
from kit.gateway import settings
from kit.receiver import Receiver
from kit.upstream import replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

STREAM_BODY = b'{"model":"m","stream":true}'
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'

# The promise, and where reading was paused.
AT_ONCE, AT_ONCE_IF_PAUSED = 0.1, 0.5

# What a loaded machine may add to a single one of several measurements.
OUTLIER = 1.0

READ, IDLE = 0.5, 0.8

KEY = b"sk-probe-0123456789abcdef"
AUTH = {
    "enabled": True,
    "pipeline": [{"name": "local", "type": "static", "keys": [{"key": KEY.decode(), "name": "probe"}]}],
}


async def flowing(connection, request):
    """A stream that never ends by itself: an event every 5 ms."""
    connection.write(sse_head())
    while connection.ending is None and not connection.transport.is_closing():
        connection.write(chunk(EVENT))
        await asyncio.sleep(0.005)


async def flooding(connection, request):
    """As fast as it is taken."""
    connection.write(sse_head())
    with contextlib.suppress(TimeoutError):
        while connection.ending is None and not connection.is_lost:
            await connection.send(chunk(b"x" * 65_536), 600)


MOMENTS = {
    "before the head": (replies(b"", "stall"), b"", b"", AT_ONCE),
    "after half a head": (replies(b"HTTP/1.1 200 OK\r\nX: ", "stall"), b"", b"", AT_ONCE),
    "after the head": (replies(sse_head(), "stall"), b"", b"\r\n\r\n", AT_ONCE),
    "after an event": (replies(sse_head() + chunk(EVENT), "stall"), b"", EVENT, AT_ONCE),
    "inside a chunk": (replies(sse_head() + chunk(EVENT)[:-9], "stall"), b"", b"choices", AT_ONCE),
    "in a flowing stream": (flowing, b"", EVENT * 1, AT_ONCE),
    "inside a length": (replies(answer(b"x" * 99)[:-50], "stall"), b"", b"xxxx", AT_ONCE),
    "with a request behind": (replies(b"", "stall"), get(b"/v1/behind"), b"", AT_ONCE),
    "with 40 requests behind": (replies(b"", "stall"), get(b"/v1/behind") * 40, b"", AT_ONCE),
    "with half a request behind": (flowing, post(b"/v1/behind")[:-9], EVENT, AT_ONCE),
    "with 400 kB behind": (
        replies(b"", "stall"),
        post(b"/v1/behind", b"x" * 400_000),
        b"",
        AT_ONCE_IF_PAUSED,
    ),
    "with 4 MB behind, streaming": (flowing, post(b"/v1/behind", b"x" * 4_000_000), EVENT, AT_ONCE_IF_PAUSED),
    "without having read": (flooding, b"", b"", AT_ONCE_IF_PAUSED),
}


@pytest.mark.parametrize(("script", "behind", "seen", "limit"), MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_that_leaves_frees_the_upstream(port, upstream, script, behind, seen, limit, leave):
    upstream.on_request = script
    delays = []

    for number in range(5):
        async with await RawClient.connect(port) as client:
            if script is flooding:
                client.pause()
            client.write(post(body=STREAM_BODY) + behind)
            connection = (await upstream.wait_connections(number + 1))[number]
            await upstream.wait_requests(number + 1)
            if seen:
                await client.read_until(seen)
            await asyncio.sleep(0.1 if behind or script is flooding else 0.02)
            left_at = monotonic()
            client.reset() if leave == "reset" else client.transport.abort()
        await connection.wait_end(5)
        delays.append(connection.ended_at - left_at)

    assert median(delays) < limit, delays
    assert max(delays) < limit + OUTLIER
    assert not [request for request in upstream.requests if request.target == b"/v1/behind"]


async def test_a_client_that_leaves_during_the_upload_reaches_nobody(port, upstream):
    async with await RawClient.connect(port) as client:
        await client.send(post(body=b"x" * 1_000_000)[:-1])
        await asyncio.sleep(0.05)

    assert (await ask(port, post())).status == 200
    assert len(upstream.requests) == 1
    assert upstream.unfinished == []


@pytest.mark.parametrize("script", [replies(b"", "stall"), flowing])
async def test_half_closing_leaves_nothing_hanging(port, upstream, script):
    """SHUT_WR means to nginx and HAProxy that the client left; an answer is fine too, hanging is not."""
    upstream.on_request = script
    async with await RawClient.connect(port) as client:
        await client.send(post(body=STREAM_BODY))
        await upstream.wait_requests(1)
        client.half_close()

        ended = await asyncio.wait_for(upstream.connections[0].wait_end(), 2)
    assert ended in ("fin", "rst")


async def test_a_whole_request_may_be_followed_by_a_half_close(port, upstream):
    """curl-like tools that shut down their side at once still get short answers, or a clear end."""
    async with await RawClient.connect(port) as client:
        client.write(get())
        client.half_close()
        with contextlib.suppress(Ended):
            assert (await client.read_response()).status == 200
        assert await client.wait_end(2)


# --- dawdling ----------------------------------------------------------------


@pytest.fixture
def brisk(gateways, upstream):
    """A gateway with little patience for clients; its port."""
    server = {"read_timeout": f"{READ}s", "idle_timeout": f"{IDLE}s"}
    return gateways.get(settings(gateways.backend_port, server=server)).port


UNFINISHED = {
    "one byte": b"P",
    "half a request line": b"POST /v1/ch",
    "half a head": post()[:40],
    "a head without its end": post()[: post().index(b"\r\n\r\n") + 2],
    "a body without a byte": lines("POST /v1/x HTTP/1.1", "Host: h", "Content-Length: 5"),
    "half a body": post(body=b"x" * 100)[:-50],
    "chunks without an end": lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")
    + b"5\r\nhel",
    "no last chunk": lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + chunk(b"hello"),
    "no end of the trailers": lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")
    + b"0\r\nX:",
}


@pytest.mark.parametrize("part", UNFINISHED.values(), ids=UNFINISHED)
async def test_an_unfinished_request_is_a_408_at_its_time(brisk, upstream, part):
    async with await RawClient.connect(brisk) as client:
        begun = monotonic()
        await client.send(part)
        response = await client.read_response()
        took = monotonic() - begun
        assert await client.wait_end(3) in ("fin", "rst")

    assert (response.status, response.is_complete) == (408, True)
    assert READ * 0.9 <= took < READ + 1.5
    assert upstream.requests == []


async def test_a_head_that_drips_is_not_waited_for_for_ever(brisk, upstream):
    async with await RawClient.connect(brisk) as client:
        begun = monotonic()
        for byte in post()[:-30]:
            client.write(bytes([byte]))
            await asyncio.sleep(READ / 5)
            if client.ending is not None:
                break
        assert client.ending is not None
        assert monotonic() - begun < READ * 6

    assert upstream.requests == []


async def test_a_body_that_keeps_coming_is_waited_for(brisk, upstream):
    """Silence is what is limited: a slow line may take its time."""
    body = b"0123456789"
    async with await RawClient.connect(brisk) as client:
        request = post(body=body)
        client.write(request[: -len(body)])
        for byte in body:
            await asyncio.sleep(READ / 4)
            client.write(bytes([byte]))
        response = await client.read_response(b"POST")

    assert (response.status, upstream.requests[0].body) == (200, body)


async def test_a_connection_without_a_request_is_closed_in_the_end(brisk):
    async with await RawClient.connect(brisk) as client:
        begun = monotonic()
        assert await client.wait_end(5) == "fin"
        assert monotonic() - begun >= READ * 0.9


async def test_an_idle_connection_is_closed_at_its_time(brisk):
    async with await RawClient.connect(brisk) as client:
        assert (await client.ask(get())).status == 200
        begun = monotonic()
        assert await client.wait_end(5) == "fin"
        assert IDLE * 0.9 <= monotonic() - begun < IDLE + 1.5
        assert client.unread == b""


async def test_dawdlers_do_not_slow_the_others(port, upstream):
    async with contextlib.AsyncExitStack() as stack:
        for number in range(200):
            client = await stack.enter_async_context(await RawClient.connect(port))
            client.write(post()[:30] if number % 2 else post(body=b"x" * 5000)[:-1])
        taken = []
        for _ in range(40):
            begun = monotonic()
            assert (await ask(port, get())).status == 200
            taken.append(monotonic() - begun)

    assert median(taken) < 0.05, sorted(taken)


async def test_dawdling_is_allowed_while_the_upstream_thinks(brisk, upstream):
    """Neither read nor idle time-out runs while a client waits for its answer."""

    async def late(connection, request):
        await asyncio.sleep(IDLE * 2)
        connection.write(answer(b"late"))

    upstream.on_request = late

    assert (await ask(brisk, post())).body == b"late"


# --- not reading -------------------------------------------------------------


async def test_a_reader_that_stops_costs_little_and_loses_nothing(new_gateway, upstream, backend_port):
    """At most 2 MiB of ours and 16 MiB of the upstream's for each, however much there is."""
    pieces, readers, size = 512, 8, 65_536
    sent = [0] * readers

    async def big(connection, request):
        number = int(request.target.rsplit(b"/", 1)[1])
        connection.write(sse_head())
        for _ in range(pieces):
            await connection.send(chunk(b"%c" % (65 + number) * size), 600)
            sent[number] += size
        connection.write(chunked())

    upstream.on_request = big
    gateway = new_gateway(settings(backend_port))
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for _ in range(readers):
            client = await RawClient.connect(gateway.port, receive_buffer=8192)
            clients.append(await stack.enter_async_context(client))
        before = gateway.resident_bytes
        for number, client in enumerate(clients):
            client.pause()
            client.write(get(b"/v1/big/%d" % number))
        previous = -1
        while previous != sum(sent):
            previous = sum(sent)
            await asyncio.sleep(0.7)

        assert max(sent) <= 16 * 1024 * 1024
        assert (gateway.resident_bytes - before) / readers <= 2 * 1024 * 1024

        clients[0].resume()
        response = await clients[0].read_response(patience=60)
        assert response.is_complete
        assert response.body == b"A" * size * pieces


async def test_a_slow_reader_gets_everything(port, upstream):
    body = bytes(range(256)) * 8192
    upstream.on_request = replies(answer(body))

    async with await RawClient.connect(port, receive_buffer=4096) as client:
        await client.send(get())
        reading = asyncio.ensure_future(client.read_response(patience=60))
        for _ in range(60):
            client.pause()
            await asyncio.sleep(0.005)
            client.resume()
            await asyncio.sleep(0.001)
        response = await reading

    assert response.is_complete
    assert response.body == body


# --- expectations ------------------------------------------------------------

HEAD_100 = [b"POST /v1/x HTTP/1.1", b"Host: h", b"Content-Length: 5", b"Expect: 100-continue"]


@pytest.fixture
def keyed(gateways, upstream):
    """A gateway that wants a key; its port."""
    return gateways.get(settings(gateways.backend_port, auth=AUTH)).port


async def test_a_client_that_expects_100_is_told_to_go_on(port, upstream):
    async with await RawClient.connect(port) as client:
        await client.send(lines(*HEAD_100))
        assert (await client.read_head()).start.startswith(b"HTTP/1.1 100")
        await client.send(b"hello")
        assert (await client.read_response(b"POST")).status == 200

    assert upstream.requests[0].body == b"hello"
    assert b"expect" not in upstream.requests[0].head.names()


async def test_a_client_that_does_not_wait_for_100_is_served(port, upstream):
    response = await ask(port, lines(*HEAD_100) + b"hello")

    assert response.status == 200
    assert upstream.requests[0].body == b"hello"


async def test_a_good_key_is_told_to_go_on(keyed, upstream):
    async with await RawClient.connect(keyed) as client:
        await client.send(lines(*HEAD_100, b"Authorization: Bearer " + KEY))
        assert (await client.read_head()).start.startswith(b"HTTP/1.1 100")
        await client.send(b"hello")
        assert (await client.read_response(b"POST")).status == 200


@pytest.mark.parametrize("key", [[], [b"Authorization: Bearer wrong"], [b"X-API-Key: " + KEY + b"x"]])
async def test_a_bad_key_is_refused_before_it_may_send(keyed, upstream, key):
    async with await RawClient.connect(keyed) as client:
        await client.send(lines(*HEAD_100, *key))
        response = await client.read_response(b"POST")

    assert (response.status, response.informational) == (401, [])
    assert upstream.requests == []


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(port, upstream):
    huge = [*HEAD_100[:2], b"Content-Length: 999999999", b"Expect: 100-continue"]

    response = await ask(port, lines(*huge))

    assert (response.status, response.informational) == (413, [])
    assert upstream.requests == []


async def test_an_old_client_is_not_sent_a_100(port, upstream):
    request = [b"POST /v1/x HTTP/1.0", *HEAD_100[1:]]

    response = await ask(port, lines(*request) + b"hello")

    assert response.informational == []
    assert response.status in (200, 417)


# --- afterwards --------------------------------------------------------------


async def leave_somewhere(port, dice, *extra):
    """Send a request and leave after up to 30 ms, in one of several ways."""
    request = post(b"/v1/x", STREAM_BODY, *extra)
    client = await RawClient.connect(port)
    client.write(request[: dice.choice((len(request), len(request), dice.randrange(len(request))))])
    with contextlib.suppress(Ended, Silent):
        await client.read_until(b"never", dice.random() * 0.03)
    dice.choice((client.close, client.reset, client.transport.abort))()


async def test_after_200_aborts_the_files_are_back(port, upstream, gateway):
    upstream.on_request = flowing
    await asyncio.gather(*(leave_somewhere(port, random.Random(n)) for n in range(20)))
    await eventually(lambda: upstream.open_connections == 0, "upstream connections closed")
    before = gateway.open_files

    for start in range(0, 200, 40):
        await asyncio.gather(*(leave_somewhere(port, random.Random(start + n)) for n in range(40)))

    await eventually(lambda: upstream.open_connections == 0, "upstream connections closed")
    await eventually(lambda: gateway.open_files <= before, f"at most {before} open files")


async def gauge(port, name):
    text = (await ask(port, get(b"/metrics"))).body
    return sum(float(line.rsplit(b" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_after_1000_aborts_every_slot_is_back(gateways, upstream):
    limit = 8
    auth = {**AUTH, "skip_paths": ["/metrics"]}
    limits = {"enabled": True, "per_key": {"enabled": True, "max_concurrent": limit}}
    port = gateways.get(settings(gateways.backend_port, auth=auth, rate_limit=limits)).port
    key = b"Authorization: Bearer " + KEY
    upstream.on_request = flowing
    for start in range(0, 1000, 50):
        await asyncio.gather(*(leave_somewhere(port, random.Random(start + n), key) for n in range(50)))
    await eventually(lambda: upstream.open_connections == 0, "upstream connections closed")

    async with contextlib.AsyncExitStack() as stack:
        statuses = []
        for _ in range(limit + 1):
            client = await stack.enter_async_context(await RawClient.connect(port))
            await client.send(post(b"/v1/x", STREAM_BODY, key))
            statuses.append((await client.read_head()).start.split(b" ")[1])
        assert statuses == [b"200"] * limit + [b"429"]

    await eventually(lambda: upstream.open_connections == 0, "upstream connections closed")
    assert await gauge(port, b"llmproxy_inflight") in (0, 1)  # the scrape itself may count


async def test_a_client_that_left_has_one_record_that_says_so(new_gateway, upstream, backend_port):
    upstream.on_request = flowing
    async with Receiver() as receiver:
        hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/u"}
        gateway = new_gateway(settings(backend_port, usage={"enabled": True, "reporters": [hook]}))

        for _ in range(10):
            async with await RawClient.connect(gateway.port) as client:
                await client.send(post(body=STREAM_BODY))
                await client.read_until(EVENT)
        records = await receiver.wait_records(10)

    assert [(record["outcome"], record["incomplete"]) for record in records] == [("client_closed", True)] * 10


async def test_leaving_right_behind_done_is_no_abort(new_gateway, upstream, backend_port):
    """openai-python stops reading at [DONE] and closes before the last chunk is there."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'

    async def slow_end(connection, request):
        connection.write(sse_head() + chunk(EVENT) + chunk(usage) + chunk(b"data: [DONE]\n\n"))
        await asyncio.sleep(0.2)
        connection.write(chunked())

    upstream.on_request = slow_end
    async with Receiver() as receiver:
        hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/u"}
        gateway = new_gateway(settings(backend_port, usage={"enabled": True, "reporters": [hook]}))

        async with await RawClient.connect(gateway.port) as client:
            await client.send(post(body=STREAM_BODY))
            await client.read_until(b"[DONE]")
        (record,) = await receiver.wait_records(1)

    assert (record["incomplete"], record["usage"]["total_tokens"]) == (False, 9)


async def test_a_storm_of_everything_leaves_the_gateway_well(port, upstream, gateway):
    """Good requests succeed while clients leave, dawdle and talk nonsense around them."""
    dice = random.Random(7)

    async def chatty(connection, request):
        connection.write(sse_head())
        for _ in range(5):
            connection.write(chunk(EVENT))
            await asyncio.sleep(0.002)
        connection.write(chunked())

    upstream.on_request = chatty

    async def one(number):
        kind = number % 4
        if kind == 0:
            return await outcome(port, post(body=STREAM_BODY))
        if kind == 1:
            return await leave_somewhere(port, random.Random(number))
        if kind == 2:
            return await outcome(port, bytes(dice.randrange(256) for _ in range(50)) + b"\r\n\r\n")
        async with await RawClient.connect(port) as client:
            client.write(post()[: dice.randrange(1, 60)])
            await asyncio.sleep(0.02)
        return None

    gate = asyncio.Semaphore(60)

    async def gated(number):
        async with gate:
            return await one(number)

    results = await asyncio.gather(*(gated(number) for number in range(400)))

    good = results[::4]
    assert {(result.status, result.is_complete) for result in good} == {(200, True)}
    assert gateway.is_running


async def test_a_client_that_leaves_in_the_moment_its_answer_ends_holds_nothing(new_gateway, upstream):
    """Both come in one turn of the gateway's loop, which stands still until they are there."""
    gateway = new_gateway(settings(upstream.port))
    asked = asyncio.Queue()

    async def held(connection, request):
        asked.put_nowait(connection)

    upstream.on_request = held

    for _ in range(20):
        async with await RawClient.connect(gateway.port) as client:
            client.write(post(body=STREAM_BODY))
            connection = await asked.get()
            gateway.stand_still()
            connection.write(answer(b"{}", b"Connection: close"))
            client.half_close()
            gateway.signal(signal.SIGCONT)
            await client.wait_end()

    async def is_free():
        page = (await ask(gateway.port, get(b"/metrics"))).body
        return b'llmproxy_upstream_in_flight{backend="backend-0"} 0.0\n' in page

    await eventually(is_free, "the server has no request")
    assert "a request failed" not in gateway.log
