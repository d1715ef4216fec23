"""What a request costs the gateway as its world grows: keys, models, endpoints, streams, bodies.

    python bench/growth.py [--only keys,models,endpoints,streams,body] [--rounds 5] [--sizes 2]

The gateway runs with limits, usage records, metrics and access log switched on. What
counts is the CPU time of its process (user and system, from the kernel), not the
time that passed; engine and clients are processes of their own. Sizes take
turns, and each figure is the least of all rounds: whatever else the machine does
only adds to it. Tables and curves go to bench/results/growth-*.
"""

import argparse
import asyncio
import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

from rig import load
from rig.processes import Gateway, allow_open_files, digest, engine, everything_on, gateway, settled
from rig.report import Curve, can_draw, draw, table, write

KEYS = (1, 100, 1_000, 10_000, 100_000)
MODELS = (1, 10, 100, 1_000)
ENDPOINTS = (1, 10, 100, 1_000)
STREAMS = (100, 500, 1_000, 2_000, 5_000)
BODIES = (1_000, 10_000, 100_000, 1_000_000, 4_000_000, 16_000_000, 64_000_000)

# Of a window: long enough for a steady state, short enough to take turns.
REQUESTS = 2_000
# Chunks a second of all streams together: a third of a core, whatever their number.
CHUNKS_PER_SECOND = 5_000
STREAM_SECONDS = 6.0
# Bytes of all requests in a window of large bodies.
BODY_BYTES = 128_000_000

# What openai-python says of itself in each request's head; all its users say the same.
SDK_LINES = (
    b"\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: OpenAI/Python 1.66.2"
    b"\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.66.2\r\nX-Stainless-OS: Linux"
    b"\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.11.7"
    b"\r\nX-Stainless-Async: false\r\nX-Stainless-Retry-Count: 0\r\nX-Stainless-Read-Timeout: 600\r\n"
)

BALANCERS = ("least_connections", "weighted", "power_of_two", "affinity")

MIB = 1024 * 1024

Page = list[str]
Requests = Callable[[int], list[bytes]]


class Bench:
    """Gateways side by side, and windows of requests in turns."""

    def __init__(self, stack: AsyncExitStack, folder: Path, rounds: int, sizes: int) -> None:
        self.stack = stack
        self.folder = folder
        self.rounds = rounds
        self._sizes = sizes

    def sizes(self, known: Sequence[int]) -> Sequence[int]:
        """Those of `known` that are measured."""
        return known[: self._sizes]

    async def start(self, name: str, settings: Mapping[str, Any]) -> Gateway:
        return await self.stack.enter_async_context(gateway(self.folder / name, settings))

    def settings(self, name: str, backends: list[str], **more: Any) -> dict[str, Any]:
        return everything_on(self.folder / name, backends, **more)

    async def turns(self, gateways: Sequence[Gateway], requests: Requests) -> list[float]:
        """CPU in µs per request of each gateway; `requests` makes a window of the one at a place."""
        for at, each in enumerate(gateways):
            await load.ask_all(each.port, requests(at))  # connections, caches, free lists
        found: list[list[float]] = [[] for _ in gateways]
        for number in range(self.rounds):
            order = range(len(gateways))
            for at in order if number % 2 else reversed(order):
                found[at].append(await _window(gateways[at], requests(at)))
        return [min(values) for values in found]


async def _window(each: Gateway, asked: list[bytes], connections: int = load.CONNECTIONS) -> float:
    before = each.cpu_seconds()
    await load.ask_all(each.port, asked, connections)
    return (each.cpu_seconds() - before) / len(asked) * 1e6


# --- what grows -------------------------------------------------------------------


async def keys(bench: Bench) -> Page:
    """Requests as an SDK sends them, with the keys of a file: each one's first, then those drawn from all."""
    (url,) = await bench.stack.enter_async_context(engine())
    counts = bench.sizes(KEYS)
    numbers, gateways = list(itertools.islice(_with_ids_of_their_own(), max(counts))), []
    for count in counts:
        file = bench.folder / f"keys-{count}.json"
        file.touch(mode=0o600)
        entries = (f'{{"sha256": "{digest(number)}", "name": "k{number}"}}' for number in numbers[:count])
        file.write_text('{"keys": [' + ",\n".join(entries) + "]}")
        settings = bench.settings(f"keys-{count}", [url])
        settings["auth"] = {"pipeline": [{"name": "file", "type": "file", "path": str(file)}]}
        gateways.append(await bench.start(f"keys-{count}", settings))
    idle = [each.resident() / MIB for each in gateways]
    dice, body = random.Random(1), load.chat()
    asked = [load.request(number, body).replace(b"\r\n", SDK_LINES, 1) for number in numbers]
    firsts = [
        await _first_requests(each, asked[:count]) for each, count in zip(gateways, counts, strict=True)
    ]
    used = [each.resident() / MIB for each in gateways]
    costs = await bench.turns(
        gateways, lambda at: [asked[dice.randrange(counts[at])] for _ in range(REQUESTS)]
    )
    rows = [
        (f"{count:,}", first, f"{cost:.0f}", f"{low:.0f}", f"{high:.0f}")
        for count, first, cost, low, high in zip(counts, firsts, costs, idle, used, strict=True)
    ]
    curves = [Curve("keys", "CPU µs per request", counts, {"": costs})]
    head = (
        "keys in a file",
        "CPU µs, a key's first request",
        "later ones, of any key",
        "MiB, idle",
        "all keys used",
    )
    return [*table(head, rows), "", draw("growth-keys", "Keys", curves)]


async def _first_requests(each: Gateway, asked: list[bytes]) -> str:
    """CPU in µs per request, each its key's first: the least of all windows; a dash for less than one."""
    await load.ask_all(each.port, asked[:1] * 500)  # connections, caches, free lists
    windows = [asked[at : at + REQUESTS] for at in range(0, len(asked), REQUESTS)]
    costs = [await _window(each, window) for window in windows]
    return f"{min(costs):.0f}" if len(asked) >= REQUESTS else "–"


def _with_ids_of_their_own() -> Iterator[int]:
    """Keys whose ids differ: of 100,000 random ones, two may share the eight digits they are called by."""
    taken: set[str] = set()
    for number in itertools.count():
        key_id = digest(number)[:8]
        if key_id not in taken:
            taken.add(key_id)
            yield number


async def models(bench: Bench) -> Page:
    """Requests for models drawn from all; each has another name in the upstream."""
    (url,) = await bench.stack.enter_async_context(engine())
    counts, gateways = bench.sizes(MODELS), []
    for count in counts:
        entries = [{"id": f"m{n}", "pool": "default", "upstream_model": f"org/m{n}"} for n in range(count)]
        settings = bench.settings(f"models-{count}", [url], models=entries)
        gateways.append(await bench.start(f"models-{count}", settings))
    dice = random.Random(1)
    costs = await bench.turns(
        gateways,
        lambda at: [load.request(0, load.chat(f"m{dice.randrange(counts[at])}")) for _ in range(REQUESTS)],
    )
    rows = [(f"{n:,}", f"{cost:.0f}") for n, cost in zip(counts, costs, strict=True)]
    curves = [Curve("models", "CPU µs per request", counts, {"": costs})]
    return [*table(("models", "CPU µs/request"), rows), "", draw("growth-models", "Models", curves)]


async def endpoints(bench: Bench) -> Page:
    """Requests of a hundred sessions to pools of so many addresses, by each balancer."""
    counts = bench.sizes(ENDPOINTS)
    urls = await bench.stack.enter_async_context(engine(max(counts)))
    places = [(balancer, count) for balancer in BALANCERS for count in counts]
    gateways = []
    for balancer, count in places:
        more: dict[str, Any] = {"routing": {"load_balance": balancer}}
        if balancer == "affinity":
            more = {"routing": {"affinity": {"enabled": True}}}
        settings = bench.settings(f"{balancer}-{count}", urls[:count], **more)
        gateways.append(await bench.start(f"{balancer}-{count}", settings))
    dice, body = random.Random(1), load.chat()
    asked = [
        load.request(0, body).replace(b"\r\n", b"\r\nX-Session-Id: s%d\r\n" % dice.randrange(100), 1)
        for _ in range(REQUESTS)
    ]
    costs = dict(zip(places, await bench.turns(gateways, lambda at: asked), strict=True))
    series = {balancer: [costs[balancer, count] for count in counts] for balancer in BALANCERS}
    rows = [(f"{n:,}", *(f"{costs[one, n]:.0f}" for one in BALANCERS)) for n in counts]
    curves = [Curve("endpoints", "CPU µs per request", counts, series)]
    return [
        *table(("endpoints", *(f"`{one}`" for one in BALANCERS)), rows),
        *("", "CPU µs per request.", "", draw("growth-endpoints", "Endpoints of a pool", curves)),
    ]


async def streams(bench: Bench) -> Page:
    """So many open streams, the same number of chunks a second in all."""
    (url,) = await bench.stack.enter_async_context(engine())
    direct = int(url.rpartition(":")[2])
    counts = bench.sizes(STREAMS)
    rows, costs, sizes, delays, alone = [], [], [], [], []
    for count in counts:
        name = f"streams-{count}"
        async with gateway(bench.folder / name, bench.settings(name, [url])) as each:
            cost, size, through = await _streams(each, count)
        async with _listening(direct, count):
            before = await _delays()
        costs.append(cost)
        sizes.append(size)
        delays.append(through[1] * 1000)
        alone.append(before[1] * 1000)
        rows.append(
            (f"{count:,}", f"{cost:.1f}", f"{size:.1f}", *(f"{d * 1000:.1f}" for d in (*through, *before)))
        )
    curves = [
        Curve("open streams", "CPU µs per chunk", counts, {"": costs}),
        Curve("open streams", "KiB per stream", counts, {"gateway": sizes}, bar=28),
        Curve("open streams", "delay p99, ms", counts, {"gateway": delays, "direct": alone}, bar=50),
    ]
    head = ("open streams", "CPU µs/chunk", "KiB/stream", "delay p50 ms", "p99 ms", "direct p50 ms", "p99 ms")
    return [*table(head, rows), "", draw("growth-streams", "Open streams", curves)]


async def _streams(each: Gateway, count: int) -> tuple[float, float, tuple[float, float]]:
    """CPU in µs per chunk, KiB per stream, and the delays' median and 99th percentile."""
    await load.ask_all(each.port, [load.request(0, load.chat())] * 500)
    async with _listening(each.port, 20):
        await asyncio.sleep(1)  # what the first streams leave behind belongs to none of the others
    idle = await settled(each.resident)
    async with _listening(each.port, count):
        before = each.cpu_seconds()
        p50, p99, chunks = await _measured_delays()
        cost = (each.cpu_seconds() - before) / chunks * 1e6
        size = (each.resident() - idle) / count / 1024
    return cost, size, (p50, p99)


@asynccontextmanager
async def _listening(port: int, count: int) -> AsyncIterator[None]:
    every = count / CHUNKS_PER_SECOND
    asked = load.request(0, b'{"every":%.4f,"model":"m","stream":true}' % every)
    listeners = await load.open_streams(port, count, asked, max(1.0, count / 1000))
    try:
        yield
    finally:
        for listener in listeners:
            listener.close()


async def _measured_delays() -> tuple[float, float, int]:
    await asyncio.sleep(1)
    load.Listener.delays = found = []
    await asyncio.sleep(STREAM_SECONDS)
    load.Listener.delays = None
    parts = quantiles(found, n=100)
    return parts[49], parts[98], len(found)


async def _delays() -> tuple[float, float]:
    p50, p99, _ = await _measured_delays()
    return p50, p99


async def body(bench: Bench) -> Page:
    """One request at a time with so large a body; renamed: the upstream knows the model by another name."""
    (url,) = await bench.stack.enter_async_context(engine())
    rows, costs, peaks = [], [], {"as it came": [], "renamed": []}
    for size in bench.sizes(BODIES):
        cost, peak = await _body(bench, url, size, {})
        costs.append(cost / 1000)
        row = [f"{size / 1e6:g} MB", f"{cost / 1000:.2f}", f"{cost / size * 1000:.2f}"]
        if size >= MIB:
            renamed = {"models": [{"id": "m", "pool": "default", "upstream_model": "org/m"}]}
            peaks["as it came"].append(peak)
            peaks["renamed"].append((await _body(bench, url, size, renamed))[1])
            row += [f"{values[-1]:.2f}" for values in peaks.values()]
        rows.append((*row, "–", "–")[:5])
    at = [size / 1e6 for size in bench.sizes(BODIES)]
    curves = [Curve("body, MB", "CPU ms per request", at, {"": costs}, log_y=True)]
    if held := len(peaks["renamed"]):
        curves.append(Curve("body, MB", "peak memory ÷ body", at[-held:], peaks, bar=2))
    head = ("body", "CPU ms/request", "CPU ms/MB", "peak memory ÷ body", "renamed")
    return [*table(head, rows), "", draw("growth-body", "Body size", curves)]


async def _body(bench: Bench, url: str, size: int, more: Mapping[str, Any]) -> tuple[float, float]:
    """CPU in µs per request, and how many times the body a gateway holds at most, more than idle."""
    name = f"body-{size}-{len(more)}"
    asked = load.request(0, b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % (b"x" * size))
    async with gateway(bench.folder / name, bench.settings(name, [url], **more)) as each:
        await load.ask_all(each.port, [load.request(0, load.chat())] * 500)
        idle = await settled(each.resident)
        each.forget_peak()
        await load.ask_all(each.port, [asked] * 2, connections=1)
        peak = (each.peak() - idle) / size
        window = [asked] * max(2, min(500, BODY_BYTES // size))
        costs = [await _window(each, window, connections=1) for _ in range(bench.rounds)]
    return min(costs), peak


KINDS: Mapping[str, Callable[[Bench], Awaitable[Page]]] = {
    "keys": keys,
    "models": models,
    "endpoints": endpoints,
    "streams": streams,
    "body": body,
}


async def measure(name: str, rounds: int, sizes: int) -> None:
    print(f"{name} …", flush=True)
    about = (KINDS[name].__doc__ or "").strip()
    with tempfile.TemporaryDirectory(prefix="llmproxy-growth-") as folder:
        async with AsyncExitStack() as stack:
            page = await KINDS[name](Bench(stack, Path(folder), rounds, sizes))
    write(f"growth-{name}", [f"# Growth: {name}", "", f"{about} See bench/growth.py.", "", *page])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=99, help="only so many of the smallest sizes")
    options = parser.parse_args()
    can_draw()
    allow_open_files()
    for name in options.only.split(","):
        asyncio.run(measure(name, options.rounds, options.sizes))


if __name__ == "__main__":
    main()
