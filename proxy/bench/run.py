"""Direct and through the gateway, turn and turn about, and a table of the difference.

The turns are short and alternate, because a machine's speed changes from second
to second: what is compared was measured side by side. Each figure is the median
over the rounds, and how far the rounds lie apart is shown beside it.
"""

import asyncio
import gc
import hashlib
import secrets
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import orjson

from proxy.bench.client import BenchError, Client, Target
from proxy.bench.figures import Figures, figures
from proxy.bench.report import Measured, report
from proxy.bench.servers import Server, gateway, started

ROUNDS = 5

# To begin one after the other, and again to get going, before each window that is longer.
WARM_SECONDS = 0.4

SMALL_TEXT = "[[hello]] Say hello."
# The demo engine reads the marks, a model the rest.
STREAM_TEXT = "[[count 40]] [[slow 20ms]] Count from 1 to 40, one number per line."
STREAM_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of one kind, so many at a time."""

    title: str
    concurrency: int
    is_stream: bool


WORKLOADS = (
    Workload("small requests, one at a time", 1, False),
    Workload("small requests, 32 at a time", 32, False),
    Workload("streams, 32 at a time", 32, True),
)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two ways."""

    target: Target
    server: Server | None  # whose CPU time counts

    def cpu_seconds(self) -> float:
        return self.server.cpu_seconds() if self.server is not None else 0.0


async def bench(
    *, upstream: str | None, key: str, model: str | None, seconds: float, say: Callable[[str], None]
) -> str:
    """Measure for `seconds` per workload and way; returns the table."""
    async with AsyncExitStack() as stack:
        if upstream is None:
            upstream = (await stack.enter_async_context(started("demo-engine", "--port", "0"))).url
            what = "the built-in demo engine"
        else:
            what = upstream
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmproxy-bench-")))
        own_key = f"sk-{secrets.token_hex(16)}"
        digest = hashlib.sha256(own_key.encode()).hexdigest()
        ours = await stack.enter_async_context(gateway(upstream.removesuffix("/v1"), key, digest, folder))
        direct = Side(Target.of(upstream, key), None)
        through = Side(Target.of(ours.url, own_key), ours)
        model = model or await first_model(direct.target)
        measured = []
        for workload in WORKLOADS:
            say(f"{workload.title}: {_duration(seconds):.0f} s")
            measured.append(await _measure(workload, model, direct, through, seconds=seconds))
        return report(what, model, measured)


def _duration(seconds: float) -> float:
    """Of one workload, both ways, with what goes before each window."""
    return 2 * (seconds + 2 * ROUNDS * min(WARM_SECONDS, seconds / ROUNDS))


async def first_model(target: Target) -> str:
    """The model that the server names first."""
    client = Client(target)
    client.content = []
    answer = await client.ask(target.request("GET", "/v1/models"))
    client.close()
    try:
        body = b"".join(client.content)
        return str(orjson.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        status = answer.status
        raise BenchError(f"/v1/models names no model (status {status}): give one with --model") from None


async def _measure(
    workload: Workload, model: str, direct: Side, through: Side, *, seconds: float
) -> Measured:
    rounds: list[tuple[Figures, Figures]] = []
    for number in range(ROUNDS):
        order = (direct, through) if number % 2 else (through, direct)
        found = {id(side): await _window(workload, model, side, seconds / ROUNDS) for side in order}
        rounds.append((found[id(direct)], found[id(through)]))
    return Measured(workload.title, workload.is_stream, rounds)


async def _window(workload: Workload, model: str, side: Side, seconds: float) -> Figures:
    """Keep asking for so long, after connections were made and caches filled."""
    request = side.target.request("POST", "/v1/chat/completions", body_of(workload, model))
    clients = [Client(side.target) for _ in range(workload.concurrency)]
    stop, warm = asyncio.Event(), min(WARM_SECONDS, seconds)
    gc.collect()
    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                # One after the other, or all streams would go in step, each behind the others' chunks.
                group.create_task(_keep_asking(client, request, warm * number / len(clients), stop))
            await asyncio.sleep(2 * warm)
            began, cpu = perf_counter(), side.cpu_seconds()
            await asyncio.sleep(seconds)
            ended, cpu = perf_counter(), side.cpu_seconds() - cpu
            stop.set()
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    finally:
        gc.enable()
        for client in clients:
            client.close()
    return figures([answer for client in clients for answer in client.answers], began, ended, cpu)


async def _keep_asking(client: Client, request: bytes, after: float, stop: asyncio.Event) -> None:
    await asyncio.sleep(after)
    while not stop.is_set():
        answer = await client.ask(request)
        if answer.status != 200:
            raise BenchError(
                f"the server answered {answer.status}: does it serve this model, and with this key?"
            )


def body_of(workload: Workload, model: str) -> bytes:
    """A chat request of this kind."""
    text = STREAM_TEXT if workload.is_stream else SMALL_TEXT
    return orjson.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": STREAM_TOKENS if workload.is_stream else 8,
            "stream": workload.is_stream,
        }
    )
