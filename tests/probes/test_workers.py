"""Several processes behind one port keep the promises of one."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from time import monotonic

import pytest
from kit.client import Ended, RawClient, ask, outcome
from kit.eventually import eventually
from kit.gateway import settings
from kit.receiver import Receiver
from kit.wire import Response, chunk, chunked, get, post, sse_head

WORKERS = 2
STREAM_BODY = b'{"model":"m","stream":true}'


def children_of(gateway):
    """The workers' process ids."""
    path = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
    return [int(number) for number in path.read_text().split()]


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


def several(backend_port, **changes):
    server = {"workers": WORKERS, "shutdown_timeout": "6s", **changes.pop("server", {})}
    return settings(backend_port, server=server, **changes)


async def stream_of_ten(connection, request):
    connection.write(sse_head())
    for number in range(10):
        connection.write(chunk(b"data: %d\n\n" % number))
        await asyncio.sleep(0.01)
    connection.write(chunked())


@pytest.fixture
def crew(new_gateway, upstream, backend_port):
    """A gateway of several processes."""
    return new_gateway(several(backend_port))


async def all_up(gateway):
    await eventually(lambda: len(children_of(gateway)) == WORKERS, "all workers up")


async def test_requests_are_served_whoever_takes_them(crew, upstream):
    await all_up(crew)

    responses = await asyncio.gather(*(ask(crew.port, post(b"/v1/x%2f?", b"%d" % n)) for n in range(100)))

    assert {(response.status, response.is_complete) for response in responses} == {(200, True)}
    assert {request.body for request in upstream.requests} == {b"%d" % n for n in range(100)}
    assert {request.target for request in upstream.requests} == {b"/v1/x%2f?"}


async def test_reloading_several_fails_nobody(crew, upstream):
    await all_up(crew)
    upstream.on_request = stream_of_ten
    until = monotonic() + 2.5
    results = []

    async def client_of():
        while monotonic() < until:
            response = await ask(crew.port, post(body=STREAM_BODY))
            results.append((response.status, response.is_complete))

    async def reloads():
        for _ in range(8):
            await asyncio.sleep(0.3)
            crew.signal(signal.SIGHUP)

    await asyncio.gather(reloads(), *(client_of() for _ in range(10)))

    assert set(results) == {(200, True)}
    assert len(results) > 50


async def test_a_worker_that_is_killed_is_replaced(crew, upstream):
    await all_up(crew)
    victim = children_of(crew)[0]

    os.kill(victim, signal.SIGKILL)

    await eventually(lambda: victim not in children_of(crew), "the dead worker gone")
    await eventually(lambda: len(children_of(crew)) == WORKERS, "its successor", 15)

    async def all_served():
        results = await asyncio.gather(*(outcome(crew.port, get()) for _ in range(20)))
        return all(isinstance(result, Response) and result.status == 200 for result in results)

    await eventually(all_served, "every request served again")


async def test_several_drain_together(crew, upstream):
    await all_up(crew)
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await RawClient.connect(crew.port)) for _ in range(20)]
        for stream in streams:
            await stream.send(post(body=STREAM_BODY))
            await stream.read_until(b"begun")
        crew.signal(signal.SIGTERM)
        await eventually(lambda: not crew.accepts(), "new connections refused", 4)
        assert crew.is_running
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert await asyncio.to_thread(crew.wait, 6) == 0


async def test_a_second_signal_ends_all_at_once(crew, upstream):
    await all_up(crew)
    upstream.on_request = stream_of_ten
    workers = children_of(crew)
    async with await RawClient.connect(crew.port) as client:
        await client.send(b"POST /v1/half HTTP/1.1\r\nHost")
        crew.signal(signal.SIGTERM)
        crew.signal(signal.SIGTERM)
        begun = monotonic()
        await asyncio.to_thread(crew.wait, 6)
        assert monotonic() - begun < 3
        with contextlib.suppress(Ended):
            await client.wait_end(2)

    assert not [pid for pid in workers if is_alive(pid)]


async def test_each_request_has_one_record_whoever_served_it(new_gateway, upstream, backend_port):
    async with Receiver() as receiver:
        hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/u"}
        gateway = new_gateway(several(backend_port, usage={"enabled": True, "reporters": [hook]}))
        await all_up(gateway)
        names = [f"w-{number}" for number in range(60)]

        await asyncio.gather(
            *(ask(gateway.port, post(b"/v1/x", b"{}", b"X-Request-Id: " + name.encode())) for name in names)
        )
        await receiver.wait_records(60)

    assert sorted(record["request_id"] for record in receiver.records) == sorted(names)


async def test_metrics_count_for_all(crew, upstream):
    await all_up(crew)
    await asyncio.gather(*(ask(crew.port, post()) for _ in range(60)))

    async def counted():
        text = (await ask(crew.port, get(b"/metrics"))).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("llmproxy_requests_total{")]
        chats = [line for line in lines if 'path="/v1/chat/completions"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in chats) == 60

    await eventually(counted, "60 requests counted, whoever is asked")
