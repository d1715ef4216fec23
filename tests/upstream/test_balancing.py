"""How requests share out over servers, counted at the servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from math import ceil
from time import monotonic

import pytest
from kit import wire
from kit.client import ask
from kit.eventually import eventually
from kit.gateway import Gateway, settings
from kit.upstream import Connection, RequestScript, ScriptedUpstream, replies
from kit.waiting import Waiting
from kit.wire import Request, post

Start = Callable[..., Awaitable[ScriptedUpstream]]
NewGateway = Callable[..., Gateway]

ALONE = {"affinity": {"enabled": False}}
LONG = 120.0


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(script: RequestScript | None = None) -> ScriptedUpstream:
            return await stack.enter_async_context(ScriptedUpstream(script))

        yield make


def chat(text: str = "hi", session: str = "") -> bytes:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    extra = (b"x-session-id: " + session.encode(),) if session else ()
    return post(b"/v1/chat/completions", body, *extra)


def prompts(server: ScriptedUpstream) -> int:
    return sum(request.method == b"POST" for request in server.requests)


class Gate:
    """A server's script: nothing is answered before it is open."""

    def __init__(self) -> None:
        self.opens = asyncio.Event()

    async def __call__(self, connection: Connection, request: Request) -> None:
        await self.opens.wait()
        connection.write(wire.answer())


async def all_good(waiting: Waiting, gate: Gate) -> None:
    gate.opens.set()
    assert {answer.status for answer in await waiting.answers(LONG)} == {200}


async def delivered(servers: list[ScriptedUpstream], number: int) -> list[int]:
    """What each server has, once they have so many together."""
    await eventually(lambda: sum(map(prompts, servers)) >= number, f"{number} requests", LONG)
    return [prompts(server) for server in servers]


# -- sessions -------------------------------------------------------------------


async def test_a_session_of_many_requests_keeps_no_server_above_the_bound(
    start: Start, new_gateway: NewGateway
) -> None:
    gate = Gate()
    servers = [await start(gate) for _ in range(4)]
    gateway = new_gateway(settings(*(server.port for server in servers)))

    async with Waiting(gateway.port) as waiting:
        await waiting.send(*(chat(str(number), "hot") for number in range(100)))
        shares = await delivered(servers, 100)
        await all_good(waiting, gate)

    assert max(shares) <= ceil(1.25 * 100 / len(servers))


async def test_only_sessions_of_servers_that_come_or_go_move(start: Start, new_gateway: NewGateway) -> None:
    """Across restarts, where nothing is remembered. The bound, which would move others, is out of the way."""
    servers = [await start() for _ in range(5)]
    routing = {"affinity": {"bound": 10}}

    async def homes(number: int) -> list[int]:
        gateway = new_gateway(settings(*(one.port for one in servers[:number]), routing=routing))
        found = []
        for session in range(60):
            before = [prompts(server) for server in servers]
            await ask(gateway.port, chat("go", f"session-{session}"), LONG)
            (at,) = [at for at, server in enumerate(servers) if prompts(server) > before[at]]
            found.append(at)
        return found

    four, five = await homes(4), await homes(5)

    moved = [new for old, new in zip(four, five, strict=True) if old != new]
    assert set(moved) == {4}  # to the one that came, and nowhere else
    assert five.count(4) == len(moved) < 30


# -- balancers --------------------------------------------------------------------


async def test_latency_based_is_no_herd(start: Start, new_gateway: NewGateway) -> None:
    """Who always took the best would send all of a burst to one server."""
    gate = Gate()
    is_burst = False

    async def script(connection: Connection, request: Request) -> None:
        if is_burst:
            await gate(connection, request)
        else:
            await asyncio.sleep(0.05)
            connection.write(wire.answer())

    servers = [await start(script) for _ in range(3)]
    routing = {**ALONE, "load_balance": "latency_based"}
    gateway = new_gateway(settings(*(server.port for server in servers), routing=routing))
    for number in range(15):
        await ask(gateway.port, chat(str(number)), LONG)
    before = [prompts(server) for server in servers]

    is_burst = True
    async with Waiting(gateway.port) as waiting:
        await waiting.send(*(chat(str(number)) for number in range(60)))
        after = await delivered(servers, 75)
        await all_good(waiting, gate)

    shares = [late - early for early, late in zip(before, after, strict=True)]
    assert max(shares) < 55  # two of three are drawn, so even the best gets two thirds only
    assert min(shares) > 0


async def test_the_server_that_refuses_quickest_does_not_look_best(
    start: Start, new_gateway: NewGateway
) -> None:
    async def works(connection: Connection, request: Request) -> None:
        await asyncio.sleep(0.05)
        connection.write(wire.answer())

    failing = await start(replies(wire.answer(b"{}", status=b"500 Oh")))
    working = await start(works)
    routing = {**ALONE, "load_balance": "latency_based", "breaker": {"enabled": False}}
    gateway = new_gateway(settings(failing.port, working.port, routing=routing))

    for number in range(40):
        await ask(gateway.port, chat(str(number)), LONG)

    assert prompts(failing) < 10


def engine(figures: bytes) -> RequestScript:
    async def script(connection: Connection, request: Request) -> None:
        kind = b"text/plain"
        connection.write(wire.answer(figures, kind=kind) if request.method == b"GET" else wire.answer())

    return script


MAKES = {
    "vllm": (b"vllm:num_requests_running %d\n", b"vllm:num_requests_waiting %d\n"),
    "sglang": (b"sglang:num_running_reqs %d\n", b"sglang:num_queue_reqs %d\n"),
    "tgi": (b"tgi_batch_current_size %d\n", b"tgi_queue_size %d\n"),
    "llama-server": (b"llamacpp:requests_processing %d\n", b"llamacpp:requests_deferred %d\n"),
}


@pytest.mark.parametrize("idle", MAKES)
async def test_engines_of_any_make_are_compared(start: Start, new_gateway: NewGateway, idle: str) -> None:
    """The idle one runs more than the others; but three that wait count as twelve."""
    servers = {}
    for make, (running, waiting) in MAKES.items():
        busy = running % (11 if make == idle else 2) + waiting % (0 if make == idle else 30)
        servers[make] = await start(engine(busy))
    routing = {**ALONE, "load_balance": "engine_load"}
    gateway = new_gateway(settings(*(server.port for server in servers.values()), routing=routing))
    for server in servers.values():
        await server.wait_requests(2, LONG)  # the first look is taken in

    for number in range(8):
        await ask(gateway.port, chat(str(number)), LONG)

    assert {make: prompts(server) for make, server in servers.items()} == {**dict.fromkeys(MAKES, 0), idle: 8}


async def test_an_engine_whose_figures_are_stale_counts_as_full(
    start: Start, new_gateway: NewGateway
) -> None:
    idle = await start(engine(b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"))
    busy = await start(engine(b"vllm:num_requests_running 9\nvllm:num_requests_waiting 9\n"))
    routing = {**ALONE, "load_balance": "engine_load"}
    gateway = new_gateway(settings(idle.port, busy.port, routing=routing))
    await idle.wait_requests(2, LONG)
    await busy.wait_requests(2, LONG)
    await ask(gateway.port, chat(), LONG)
    assert (prompts(idle), prompts(busy)) == (1, 0)

    idle.on_request = engine(b"# the metrics are gone\n")

    async def is_left() -> bool:
        before = prompts(idle)
        await ask(gateway.port, chat(), LONG)
        return prompts(idle) == before

    await eventually(is_left, "its figures are stale", LONG)


# -- health -------------------------------------------------------------------------


async def test_a_server_on_probation_gets_one_request_at_a_time(
    start: Start, new_gateway: NewGateway
) -> None:
    gate = Gate()
    suspect, well = await start(replies(wire.answer(b"{}", status=b"500 Oh"))), await start()
    open_for = 3.0
    breaker = {"failures": 2, "open_for": f"{open_for}s", "probes": 1}
    routing = {**ALONE, "load_balance": "round_robin", "breaker": breaker}
    gateway = new_gateway(settings(suspect.port, well.port, routing=routing))
    for number in range(4):
        await ask(gateway.port, chat(str(number)), LONG)
    assert prompts(suspect) == 2

    suspect.on_request = gate
    began = monotonic()
    async with Waiting(gateway.port) as waiting:
        async with asyncio.timeout(LONG):
            while prompts(suspect) == 2:  # its time is over when a request reaches it again
                await waiting.send(chat("probe"))
                await asyncio.sleep(0.05)
        await waiting.send(*[chat("others")] * 10)
        await eventually(lambda: prompts(well) >= 10, "the others are served", LONG)

        # A probe that is silent for as long again is followed by another.
        assert prompts(suspect) - 2 <= 1 + (monotonic() - began) / open_for
        await all_good(waiting, gate)


async def test_a_server_that_comes_back_gets_a_small_share_first(
    start: Start, new_gateway: NewGateway
) -> None:
    is_well = True

    async def script(connection: Connection, request: Request) -> None:
        is_bad = request.method == b"GET" and not is_well
        connection.write(wire.answer(status=b"503 Busy") if is_bad else wire.answer())

    returning, other = await start(script), await start()
    made = settings(
        returning.port,
        other.port,
        routing={**ALONE, "load_balance": "weighted", "breaker": {"slow_start": "1h"}},
    )
    made["health_check"] = {"enabled": True, "interval": "100ms", "timeout": "20s"}
    gateway = new_gateway(made)

    async def share(number: int) -> int:
        before = prompts(returning)
        for at in range(number):
            await ask(gateway.port, chat(str(at)), LONG)
        return prompts(returning) - before

    async def is_used() -> bool:
        return await share(22) > 0

    assert await share(20) == 10
    is_well = False

    async def is_left() -> bool:
        return await share(4) == 0

    await eventually(is_left, "it is out", LONG)
    is_well = True
    await eventually(is_used, "it is back", LONG)

    assert await share(110) == 10
