"""Servers that take requests and answer nobody are left alone; servers that work on a prompt are not."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack

import pytest
from kit import wire
from kit.client import ask
from kit.engines import Engine
from kit.eventually import eventually
from kit.gateway import settings
from kit.upstream import ScriptedUpstream, replies
from kit.waiting import Waiting
from kit.wire import chunk, get, post, sse_head

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
DEMO = json.dumps({"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
IN_TURN = {"load_balance": "round_robin", "affinity": {"enabled": False}, "breaker": {"enabled": False}}

# Nothing but the sentinel ends a silence: whoever waits for the first byte waits for longer than any test.
PATIENT = {"connect": "1s", "first_byte": "10m", "idle": "10m"}
MOVES = {"enabled": True, "retry_on": ["unresponsive"], "budget": 1.0}
LONG = 120.0


@pytest.fixture
async def upstreams():
    async with AsyncExitStack() as stack:

        async def make(script=None, **options):
            return await stack.enter_async_context(ScriptedUpstream(script, **options))

        yield make


@pytest.fixture
async def engines():
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Engine()) for _ in range(2)]


def routing(**changes):
    return {**IN_TURN, "timeouts": PATIENT, **changes}


async def gauge(gateway, name, at):
    page = await ask(gateway.port, get(b"/metrics"))
    return float(page.body.partition(b'%b{backend="backend-%d"} ' % (name, at))[2].split()[0])


async def becomes(gateway, at, *, unresponsive):
    async def is_so():
        return await gauge(gateway, b"llmproxy_upstream_unresponsive", at) == unresponsive

    await eventually(is_so, f"backend-{at} is unresponsive: {unresponsive}", patience=LONG)


async def attempts(gateway, number):
    """The attempts of all forwarded requests, once there are so many of them."""

    def found():
        lines = [json.loads(line) for line in gateway.log_lines() if '"backend"' in line]
        served = [line for line in lines if "outcome" in line and line["backend"]]
        return [line.get("attempts") or [f"{line['backend']}:{line['status']}"] for line in served]

    await eventually(lambda: len(found()) >= number, f"{number} access lines", patience=LONG)
    return found()


def checks(upstream):
    return [one for one in upstream.requests if one.target == b"/health"]


def prompts(upstream):
    return [one for one in upstream.requests if one.method == b"POST"]


class Prefill:
    """Answers checks in the way that is given, and prompts once the test says so."""

    def __init__(self, check):
        self._check = check
        self.is_done = asyncio.Event()

    async def __call__(self, connection, request):
        if request.method == b"POST":
            await self.is_done.wait()
            connection.write(wire.answer())
        else:
            connection.write(self._check)


# -- a process that is stopped ------------------------------------------------


async def test_a_stopped_server_gets_nothing_new_and_returns(engines, new_gateway) -> None:
    gateway = new_gateway(settings(*(engine.port for engine in engines), routing=routing()))
    async with Waiting(gateway.port) as waiting:
        engines[0].signal(signal.SIGSTOP)
        await waiting.send(*[post(body=DEMO)] * 4)
        await becomes(gateway, 0, unresponsive=True)

        elsewhere = [await ask(gateway.port, post(body=DEMO), LONG) for _ in range(10)]

        engines[0].signal(signal.SIGCONT)
        await becomes(gateway, 0, unresponsive=False)
        late = await waiting.answers(LONG)
        again = [await ask(gateway.port, post(body=DEMO), LONG) for _ in range(4)]

    assert {(one.status, one.end) for one in (*elsewhere, *late, *again)} == {(200, "complete")}
    names = [one for line in await attempts(gateway, 18) for one in line]
    assert len(names) == 18  # nothing was sent twice
    assert names.count("backend-0:200") >= 4  # two that had waited there, and two since
    assert "upstream does not respond" in gateway.log
    assert "upstream responds again" in gateway.log


async def test_what_waits_at_a_stopped_server_moves_where_that_is_allowed(engines, new_gateway) -> None:
    gateway = new_gateway(settings(*(engine.port for engine in engines), routing=routing(retry=MOVES)))
    async with Waiting(gateway.port) as waiting:
        engines[0].signal(signal.SIGSTOP)
        await waiting.send(*[post(body=DEMO)] * 6)

        answers = await waiting.answers(LONG)  # while it is still stopped

        engines[0].signal(signal.SIGCONT)
        await becomes(gateway, 0, unresponsive=False)

    assert {(one.status, one.end) for one in answers} == {(200, "complete")}
    ways = await attempts(gateway, 6)
    assert ways.count(["backend-0:unresponsive", "backend-1:200"]) == 3
    assert ways.count(["backend-1:200"]) == 3
    # Its breaker has nothing against it: it is used again at once.
    again = [await ask(gateway.port, post(body=DEMO), LONG) for _ in range(2)]
    assert {one.status for one in again} == {200}
    assert ["backend-0:200"] in await attempts(gateway, 8)


async def test_what_can_be_repeated_without_harm_moves_always(new_gateway, upstreams) -> None:
    stopped, well = await upstreams(replies(b"", "stall")), await upstreams()
    gateway = new_gateway(settings(stopped.port, well.port, routing=routing()))

    answers = [await ask(gateway.port, get(b"/v1/files"), LONG) for _ in range(2)]

    assert {one.status for one in answers} == {200}
    assert ["backend-0:unresponsive", "backend-1:200"] in await attempts(gateway, 2)


# -- a server that works --------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        wire.answer(),
        wire.answer(status=b"404 Not Found"),
        wire.answer(status=b"503 Service Unavailable"),
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["well", "no health page", "unwell", "no HTTP"],
)
async def test_a_server_that_says_anything_while_it_prefills_stays(new_gateway, upstreams, check) -> None:
    prefill = Prefill(check)
    slow, other = await upstreams(prefill), await upstreams()
    gateway = new_gateway(settings(slow.port, other.port, routing=routing(retry=MOVES)))
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 2)
        await eventually(lambda: len(checks(slow)) >= 3, "it was asked three times", patience=LONG)

        assert await gauge(gateway, b"llmproxy_upstream_unresponsive", 0) == 0.0
        await waiting.send(*[post(body=CHAT)] * 2)  # one of these is its again
        await eventually(lambda: len(prompts(slow)) == 2, "it gets its share", patience=LONG)
        prefill.is_done.set()
        answers = await waiting.answers(LONG)

    assert {one.status for one in answers} == {200}
    assert len(prompts(slow)) == len(prompts(other)) == 2
    assert checks(other) == []


async def test_a_server_that_streams_to_somebody_is_not_asked(new_gateway, upstreams) -> None:
    """One with a single thread could not answer a question, and has answered it already."""
    pieces = 0
    is_enough = asyncio.Event()

    async def serve(connection, request):
        nonlocal pieces
        if len(prompts(single)) > 1:
            await is_enough.wait()
            connection.write(wire.answer())
            return
        connection.write(sse_head())
        while not is_enough.is_set():
            connection.write(chunk(b": token\n\n"))
            pieces += 1
            await asyncio.sleep(0.05)
        connection.write(b"0\r\n\r\n")

    single, other = await upstreams(serve), await upstreams()
    gateway = new_gateway(settings(single.port, other.port, routing=routing(retry=MOVES)))
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 4)
        await eventually(lambda: len(prompts(single)) == 2 and pieces > 40, "it streams", patience=LONG)
        is_enough.set()
        answers = await waiting.answers(LONG)

    assert {one.status for one in answers} == {200}
    assert len(prompts(other)) == 2
    # A machine that is held up for half a second makes this server silent, too; then it is asked.
    assert len(checks(single)) <= 1


# -- nobody else ------------------------------------------------------------------


async def test_where_all_are_silent_requests_wait(new_gateway, upstreams) -> None:
    is_over = asyncio.Event()

    async def stopped(connection, request):
        await is_over.wait()
        connection.write(wire.answer())

    both = [await upstreams(stopped) for _ in range(2)]
    gateway = new_gateway(settings(*(one.port for one in both), routing=routing(retry=MOVES)))
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 2)
        await becomes(gateway, 0, unresponsive=True)
        await becomes(gateway, 1, unresponsive=True)
        await waiting.send(*[post(body=CHAT)] * 2)  # suspicion is no reason to refuse
        delivered = sum(len(prompts(one)) for one in both)
        await eventually(
            lambda: sum(len(prompts(one)) for one in both) >= 4, "all are delivered", patience=LONG
        )
        is_over.set()
        answers = await waiting.answers(LONG)

    assert delivered <= 4
    assert {one.status for one in answers} == {200}


async def test_a_fallback_is_somebody_else(new_gateway, upstreams) -> None:
    stopped, tiny = await upstreams(replies(b"", "stall")), await upstreams()
    configuration = settings(stopped.port, routing=routing(retry=MOVES))
    small = {"backends": [{"name": "tiny", "url": f"http://127.0.0.1:{tiny.port}"}]}
    configuration["pools"] = {"small": small}
    configuration["models"] = [{"id": "m", "fallback": ["t"]}, {"id": "t", "pool": "small"}]
    gateway = new_gateway(configuration)

    response = await ask(gateway.port, post(body=CHAT), LONG)

    assert response.status == 200
    assert await attempts(gateway, 1) == [["backend-0:unresponsive", "tiny:200"]]
    assert len(prompts(tiny)) == 1


async def test_a_single_server_is_not_asked(new_gateway, upstreams) -> None:
    stopped = await upstreams(replies(b"", "stall"))
    timeouts = {"connect": "1s", "first_byte": "3s"}
    gateway = new_gateway(settings(stopped.port, routing=routing(timeouts=timeouts)))

    response = await ask(gateway.port, post(body=CHAT), LONG)

    assert response.status == 504
    assert checks(stopped) == []


# -- other ways to be silent --------------------------------------------------------


async def test_a_head_alone_is_no_answer(new_gateway, upstreams) -> None:
    """vLLM sends a stream's head before it has begun to work."""

    async def head_only(connection, request):
        if request.method == b"POST":
            connection.write(sse_head())
        await connection.stall()

    stopped, well = await upstreams(head_only), await upstreams()
    gateway = new_gateway(settings(stopped.port, well.port, routing=routing(retry=MOVES)))
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 2)
        answers = await waiting.answers(LONG)

    assert {(one.status, one.end) for one in answers} == {(200, "complete")}
    assert ["backend-0:unresponsive", "backend-1:200"] in await attempts(gateway, 2)


async def test_retries_of_a_stopped_pool_have_a_budget(new_gateway, upstreams) -> None:
    """Ten may move; who may not waits."""
    is_over = asyncio.Event()

    async def stopped(connection, request):
        await is_over.wait()
        connection.write(wire.answer())

    silent, well = await upstreams(stopped), await upstreams()
    retry = {**MOVES, "budget": 0.0}
    gateway = new_gateway(settings(silent.port, well.port, routing=routing(retry=retry)))
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 40)
        await eventually(lambda: len(prompts(well)) == 30, "ten have moved", patience=LONG)
        await becomes(gateway, 0, unresponsive=True)
        is_over.set()
        answers = await waiting.answers(LONG)

    assert {one.status for one in answers} == {200}
    ways = await attempts(gateway, 40)
    assert ways.count(["backend-0:unresponsive", "backend-1:200"]) == 10
    assert ways.count(["backend-0:200"]) == 10


@pytest.mark.parametrize("why", ["silent", "drained"])
async def test_what_is_stuck_at_one_server_takes_no_places_from_the_others(
    new_gateway, upstreams, why
) -> None:
    """Where requests queue, places are counted for the whole pool."""
    is_over = asyncio.Event()

    async def stopped(connection, request):
        await is_over.wait()
        connection.write(wire.answer())

    first, other = await upstreams(stopped), await upstreams(Prefill(wire.answer()))
    configuration = settings(first.port, other.port, routing=routing(queue={"max_wait": "10m"}))
    for backend in configuration["backends"]:
        backend["max_in_flight"] = 2
    gateway = new_gateway(configuration)
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 4)
        await eventually(lambda: len(prompts(first)) + len(prompts(other)) == 4, "all places are taken", LONG)
        if why == "silent":
            await becomes(gateway, 0, unresponsive=True)
        else:
            configuration["backends"][0]["weight"] = 0
            gateway.write(configuration)
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: '"reloaded"' in gateway.log, "it reloads", LONG)
        await waiting.send(*[post(body=CHAT)] * 6)
        other.on_request.is_done.set()

        await eventually(lambda: len(prompts(other)) == 8, "the other one serves all that waits", LONG)

        is_over.set()
        answers = await waiting.answers(LONG)

    assert {one.status for one in answers} == {200}
    assert len(prompts(first)) == 2


async def test_a_reload_keeps_what_is_known(new_gateway, upstreams) -> None:
    stopped, well = await upstreams(replies(b"", "stall")), await upstreams()
    configuration = settings(stopped.port, well.port, routing=routing())
    gateway = new_gateway(configuration)
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*[post(body=CHAT)] * 2)
        await becomes(gateway, 0, unresponsive=True)

        gateway.write({**configuration, "models": [{"id": "new"}]})
        gateway.signal(signal.SIGHUP)
        await eventually(lambda: '"reloaded"' in gateway.log, "it reloads", patience=LONG)

        assert await gauge(gateway, b"llmproxy_upstream_unresponsive", 0) == 1.0
