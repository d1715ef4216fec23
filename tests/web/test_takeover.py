"""Three real servers, killed, stalled and restarted in turn under load: who had not begun is served."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from kit.client import Ended, RawClient, Silent, ask
from kit.engines import Engine
from kit.eventually import eventually
from kit.gateway import settings
from kit.wire import get, post

RATE = 20.0
CONNECT_SECONDS = 2.0

BODY = json.dumps(
    {
        "model": "demo",
        "stream": True,
        "messages": [{"role": "user", "content": "[[wait 300ms]] [[count 10]] [[slow 20ms]]"}],
    }
).encode()


class Load:
    """Requests at a steady rate, and what became of each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends = asyncio.Event()
        self.whole = 0
        self.cut = 0  # after they had begun
        self.failed: list[str] = []
        self.waits: list[tuple[float, float]] = []  # when sent, and the seconds until the first byte

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._ends.is_set():
                group.create_task(self._one())
                await asyncio.sleep(1.0 / RATE)

    def stop(self) -> None:
        self._ends.set()

    async def sent_within(self, seconds: float) -> tuple[float, float]:
        """Let so much time pass; returns when it began and ended."""
        began = monotonic()
        await asyncio.sleep(seconds)
        return began, monotonic()

    def slowest(self, since: float, until: float) -> float:
        return max(wait for sent, wait in self.waits if since <= sent <= until)

    async def _one(self) -> None:
        sent = monotonic()
        async with await RawClient.connect(self._port) as client:
            client.write(post(body=BODY))
            try:
                response = await client.read_response(patience=20.0)
            except (Ended, Silent) as error:
                self.failed.append(repr(error))
                return
        if response.status != 200:
            self.failed.append(f"{response.status} {response.body!r}")
        elif response.end == "complete" and b"data: [DONE]" in response.body:
            self.whole += 1
        else:
            self.cut += 1
        self.waits.append((sent, client.arrivals[0][0] - sent))


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    made = [Engine() for _ in range(3)]
    await asyncio.gather(*(engine.start() for engine in made))
    yield made
    for engine in made:
        await engine.kill()


async def test_servers_that_die_stall_and_return_cost_nobody_a_request(engines, new_gateway) -> None:
    causes = ["no_answer", "unresponsive", 503]
    gateway = new_gateway(
        settings(
            *(engine.port for engine in engines),
            routing={
                "retry": {"enabled": True, "retry_on": causes, "budget": 1.0},
                "timeouts": {"connect": f"{CONNECT_SECONDS}s", "first_byte": "10m", "idle": "10m"},
                "breaker": {"failures": 2, "open_for": "1s", "slow_start": "0s"},
            },
        )
    )
    load = Load(gateway.port)
    killed = []
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for at, engine in enumerate(engines):
            await asyncio.sleep(1.0)
            await engine.kill()
            killed.append(await load.sent_within(1.0))
            await engine.start()
            await eventually(lambda at=at: is_used(gateway, at), "it gets requests again", patience=20.0)
            engine.signal(signal.SIGSTOP)
            await eventually(lambda at=at: is_left(gateway, at), "it gets no requests", patience=60.0)
            served = load.whole
            await eventually(lambda served=served: load.whole > served + 20, "others serve", patience=60.0)
            engine.signal(signal.SIGCONT)
            await eventually(lambda at=at: is_used(gateway, at), "it gets requests again", patience=60.0)
        load.stop()

    assert load.failed == []
    assert load.whole > 10 * load.cut
    # A dead server is left at once.
    assert max(load.slowest(*span) for span in killed) < CONNECT_SECONDS
    # Who waited at one that was stopped was served by another, while it was.
    ways = [json.loads(line).get("attempts") or [] for line in gateway.log_lines() if "attempts" in line]
    left = {one for way in ways for one in way if one.endswith(":unresponsive")}
    assert left == {f"backend-{at}:unresponsive" for at in range(len(engines))}


async def is_left(gateway, at: int) -> bool:
    page = await ask(gateway.port, get(b"/metrics"))
    return b'llmproxy_upstream_unresponsive{backend="backend-%d"} 1' % at in page.body


async def is_used(gateway, at: int) -> bool:
    page = await ask(gateway.port, get(b"/metrics"))
    row = b'llmproxy_upstream_in_flight{backend="backend-%d"} ' % at
    return float(page.body.partition(row)[2].split()[0]) > 0
