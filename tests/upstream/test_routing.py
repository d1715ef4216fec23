"""Pools as a client feels them: the whole gateway in front of several scripted servers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic

import pytest
from kit import wire
from kit.client import RawClient, ask
from kit.gateway import Gateway, free_port, settings
from kit.upstream import Connection, ScriptedUpstream, replies
from kit.wire import Request, Response

Servers = list[ScriptedUpstream]
StartServers = Callable[[int], Awaitable[Servers]]
NewGateway = Callable[..., Gateway]

BUSY = wire.answer(b'{"error":{"message":"busy"}}', status=b"503 Service Unavailable")
BROKEN = wire.answer(b'{"error":{"message":"broken"}}', status=b"500 Internal Server Error")
BAD = wire.answer(b'{"error":{"message":"bad"}}', status=b"400 Bad Request")


@pytest.fixture
async def start_servers() -> AsyncIterator[StartServers]:
    async with AsyncExitStack() as stack:

        async def start(count: int) -> Servers:
            return [await stack.enter_async_context(ScriptedUpstream()) for _ in range(count)]

        yield start


def chat(*turns: str, headers: tuple[str, ...] = (), model: str = "m", **fields: object) -> bytes:
    """A request with these turns, the user's and the assistant's by turns."""
    roles = ("user", "assistant")
    messages = [{"role": "system", "content": "You are an agent."}] + [
        {"role": roles[number % 2], "content": text} for number, text in enumerate(turns)
    ]
    body = json.dumps({"model": model, "messages": messages, **fields}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: us", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def session(name: str, *more: str) -> tuple[str, ...]:
    return (f"x-session-id: {name}", *more)


def served(servers: Servers) -> list[int]:
    return [len(server.requests) for server in servers]


async def where(gateway: Gateway, servers: Servers, request: bytes) -> int:
    """Which server answers."""
    before = served(servers)
    response = await ask(gateway.port, request)
    assert response.status == 200
    (moved,) = [at for at, count in enumerate(served(servers)) if count > before[at]]
    return moved


def routing(
    *servers: ScriptedUpstream, weights: tuple[int, ...] = (), **changes: object
) -> dict[str, object]:
    made = settings(*(server.port for server in servers), routing=changes)
    for backend, weight in zip(made["backends"], weights, strict=False):
        backend["weight"] = weight
    return made


# -- affinity ---------------------------------------------------------------


async def test_a_session_sticks_without_any_setup(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers))

    homes = {}
    for turn in range(4):
        for name in range(12):
            at = await where(gateway, servers, chat(f"turn {turn}", headers=session(f"ses-{name}")))
            assert homes.setdefault(name, at) == at

    assert set(homes.values()) == {0, 1, 2}


NAMES: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "x-session-affinity": (("x-session-affinity: NAME",), {}),
    "x-session-id": (("x-session-id: NAME",), {}),
    "x-claude-code-session-id": (("X-Claude-Code-Session-Id: NAME",), {}),
    "session-id": (("Session-Id: NAME",), {}),
    "session_id": (("session_id: NAME",), {}),
    "prompt_cache_key": ((), {"prompt_cache_key": "NAME"}),
    "user": ((), {"user": "NAME"}),
    "metadata": ((), {"metadata": {"user_id": "NAME"}}),
}


async def test_a_session_has_a_name_in_any_agents_way(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    """What was said differs each time, so nothing but the name can keep them together."""
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers))

    for kind, (headers, fields) in NAMES.items():
        homes: dict[str, set[int]] = {}
        for turn in range(3):
            for name in (f"{kind}-{number}" for number in range(8)):
                named = json.loads(json.dumps(fields).replace("NAME", name))
                lines = tuple(header.replace("NAME", name) for header in headers)
                request = chat(f"{name} {turn}", headers=lines, **named)
                homes.setdefault(name, set()).add(await where(gateway, servers, request))

        assert {len(places) for places in homes.values()} == {1}, kind
        assert len(set().union(*homes.values())) > 1, kind


async def test_a_conversation_sticks_without_any_header(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers))

    homes = []
    for name in range(12):
        turns = [f"Task {name}"]
        home = await where(gateway, servers, chat(*turns))
        for _ in range(3):
            turns += ["Done.", "More."]
            assert await where(gateway, servers, chat(*turns)) == home
        homes.append(home)

    assert set(homes) == {0, 1, 2}


async def test_sub_agents_are_beside_their_parent(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(4)
    gateway = new_gateway(routing(*servers))

    for name in range(8):
        home = await where(gateway, servers, chat("go", headers=session(f"p{name}")))
        child = session(f"c{name}", f"x-parent-session-id: p{name}")

        assert await where(gateway, servers, chat("help", headers=child)) == home


async def test_a_session_whose_server_dies_moves_once_and_loses_nothing(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers))
    home = await where(gateway, servers, chat("one", headers=session("s")))

    await servers[home].close()
    places = {await where(gateway, servers, chat(f"{n}", headers=session("s"))) for n in range(6)}

    assert len(places) == 1
    assert home not in places


# -- balancing --------------------------------------------------------------


async def test_equal_requests_share_out_by_weight(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers, weights=(5, 1, 1), load_balance="weighted"))

    places = [await where(gateway, servers, chat("hi")) for _ in range(14)]

    assert places == [0, 1, 0, 0, 0, 2, 0] * 2


async def test_equal_requests_take_turns(start_servers: StartServers, new_gateway: NewGateway) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers, load_balance="round_robin"))

    places = [await where(gateway, servers, chat("hi")) for _ in range(9)]

    assert places[:3] == places[3:6] == places[6:]
    assert sorted(places[:3]) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["least_connections", "power_of_two"])
async def test_a_busy_server_is_passed_over(
    start_servers: StartServers, new_gateway: NewGateway, kind: str
) -> None:
    servers = await start_servers(2)
    gateway = new_gateway(routing(*servers, load_balance=kind))

    async def slow(connection: Connection, request: Request) -> None:
        connection.write(wire.sse_head())
        await connection.stall()

    for server in servers:
        server.on_request = slow
    async with await RawClient.connect(gateway.port) as client:
        await client.send(chat("hi"))
        busy = await wait_for_one(servers)
        servers[1 - busy].on_request = replies(wire.answer())

        assert {await where(gateway, servers, chat("hi")) for _ in range(5)} == {1 - busy}


async def wait_for_one(servers: Servers) -> int:
    deadline = monotonic() + 5.0
    while monotonic() < deadline:
        for at, server in enumerate(servers):
            if server.requests:
                return at
        await asyncio.sleep(0.005)
    raise AssertionError("no server was asked")


# -- failover ---------------------------------------------------------------


async def test_a_server_that_dies_under_load_costs_no_request(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(3)
    gateway = new_gateway(routing(*servers))
    together = asyncio.Barrier(9)

    async def client(number: int) -> list[Response]:
        answers = []
        for turn in range(20):
            if turn == 5:  # what runs on a server when it dies may have been done: nobody does at this moment
                await together.wait()
                if number == 0:
                    await servers[0].close()
                await together.wait()
            answers.append(await ask(gateway.port, chat(f"{turn}", headers=session(f"s{number}"))))
        return answers

    answers = [answer for got in await asyncio.gather(*(client(n) for n in range(9))) for answer in got]

    assert Counter(answer.status for answer in answers) == {200: 180}


async def test_what_is_listed_is_tried_elsewhere_and_what_is_not_is_passed_on(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(2)
    gateway = new_gateway(routing(*servers, retry={"enabled": True, "retry_on": [503]}))
    servers[0].on_request = replies(BUSY)

    answers = [await ask(gateway.port, chat(f"{n}")) for n in range(6)]
    assert {answer.status for answer in answers} == {200}

    servers[0].on_request = servers[1].on_request = replies(BROKEN)
    assert (await ask(gateway.port, chat("x"))).status == 500


async def test_another_pool_serves_when_the_models_own_cannot(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    (spare,) = await start_servers(1)
    made = settings()
    del made["backends"]
    made["pools"] = {
        "main": {"backends": [{"name": "gone", "url": f"http://127.0.0.1:{free_port()}"}]},
        "spare": {"backends": [{"name": "spare", "url": f"http://127.0.0.1:{spare.port}"}]},
    }
    made["models"] = [
        {"id": "big", "pool": "main", "fallback": ["small"]},
        {"id": "small", "pool": "spare", "upstream_model": "tiny-1b"},
    ]
    gateway = new_gateway(made)

    response = await ask(gateway.port, chat("hi", model="big"))

    assert response.status == 200
    assert b'"tiny-1b"' in spare.requests[0].body


# -- health -----------------------------------------------------------------


async def test_errors_of_the_server_take_it_out_and_errors_of_the_client_do_not(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(2)
    breaker = {"failures": 3, "open_for": "60s"}
    gateway = new_gateway(routing(*servers, load_balance="round_robin", breaker=breaker))

    servers[0].on_request = replies(BAD)
    for number in range(20):
        await ask(gateway.port, chat(f"{number}"))
    assert served(servers) == [10, 10]

    servers[0].on_request = replies(BROKEN)
    for number in range(20):
        await ask(gateway.port, chat(f"{number}"))
    assert served(servers) == [13, 27]


async def test_a_server_that_recovers_serves_again_within_one_interval(
    start_servers: StartServers, new_gateway: NewGateway
) -> None:
    servers = await start_servers(2)
    made = routing(*servers, load_balance="round_robin")
    checks = {"enabled": True, "interval": "500ms", "healthy_threshold": 2, "unhealthy_threshold": 2}
    made["health_check"] = checks
    is_well = True

    async def script(connection: Connection, request: Request) -> None:
        if b"GET /health" in request.raw:
            checks_seen.append(is_well)
            connection.write(wire.answer() if is_well else BUSY)
        else:
            chats.append(len(checks_seen))
            connection.write(wire.answer())

    chats: list[int] = []  # each with the number of checks that had come
    checks_seen: list[bool] = []
    servers[0].on_request = script
    gateway = new_gateway(made)

    async def gets_requests(wanted: bool) -> None:
        began = monotonic()
        while monotonic() < began + 20.0:
            chats.clear()
            for number in range(4):
                assert (await ask(gateway.port, chat(f"{number}"))).status == 200
            if bool(chats) is wanted:
                return
        raise AssertionError("it did not happen")

    await gets_requests(True)
    is_well = False
    await gets_requests(False)
    checks_seen.clear()
    is_well = True
    await gets_requests(True)

    # How soon the two come, half an interval and a quarter, is `pause_after`'s affair.
    assert checks_seen[:2] == [True, True]
    assert chats[0] >= 2
