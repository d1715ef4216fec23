"""Several worker processes beside one: CPU per request, throughput, and how evenly streams are spread.

    python bench/workers.py [--rounds 5] [--streams 400]

One worker and two take turns with the same requests. Throughput says something only
where engine, clients and workers have cores of their own: on a machine with two,
two workers share them with the load. So it is measured once more with a fixed share
of a core for each worker, small enough that the load is never short of time: what two
workers take then beside one is how they scale. The page goes to bench/results/workers.md.
"""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

from rig import load
from rig.processes import Gateway, allow_open_files, engine, everything_on, gateway
from rig.report import table, write
from rig.share import can_share, shared

REQUESTS = 4_000

# Of a core for each worker: the load costs about what a request costs one worker, the engine half.
SHARE = 0.2
CONNECTIONS = 64


# CPU in µs per request and requests a second, of each gateway.
Windows = list[tuple[float, float]]


async def window(each: Gateway) -> tuple[float, float]:
    """CPU in µs per request, and requests a second."""
    asked = [load.request(0, load.chat())] * REQUESTS
    cpu, began = each.cpu_seconds(), perf_counter()
    await load.ask_all(each.port, asked, CONNECTIONS)
    return (each.cpu_seconds() - cpu) / REQUESTS * 1e6, REQUESTS / (perf_counter() - began)


async def windows(gateways: list[Gateway], rounds: int) -> Windows:
    """The median of so many windows of each, taken in turns."""
    found = [[await window(each) for each in gateways] for _ in range(rounds)]
    return [
        (median(c for c, _ in values), median(r for _, r in values)) for values in zip(*found, strict=True)
    ]


async def spread(each: Gateway, streams: int) -> list[int]:
    """How many of so many streams each worker has."""
    asked = load.request(0, b'{"every":1.0,"model":"m","stream":true}')
    await asyncio.sleep(4)  # idle connections to the upstream are dropped after 3 s
    before = [_open_files(pid) for pid in each.pids()[1:]]
    listeners = await load.open_streams(each.port, streams, asked, 2.0)
    after = [_open_files(pid) for pid in each.pids()[1:]]
    for listener in listeners:
        listener.close()
    # A stream is two files: the client's connection and the upstream's.
    return [(now - then) // 2 for then, now in zip(before, after, strict=True)]


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def measure(rounds: int, streams: int, folder: Path) -> list[str]:
    async with AsyncExitStack() as stack:
        (url,) = await stack.enter_async_context(engine())
        gateways = []
        for workers in (1, 2):
            settings = everything_on(folder / str(workers), [url], server={"workers": workers})
            # Limits of several workers live in Redis, which is a figure of its own (bench/limits.py).
            settings["rate_limit"] = {"enabled": False}
            gateways.append(await stack.enter_async_context(gateway(folder / str(workers), settings)))
        for each in gateways:
            await window(each)
        free = await windows(gateways, rounds)
        confined: Windows = [(0.0, 0.0), (0.0, 0.0)]
        if can_share():
            workers = [pid for each in gateways for pid in each.pids()[1:] or each.pids()]
            with shared(workers, SHARE):
                confined = await windows(gateways, rounds)
        streams_of = await spread(gateways[1], streams)
    rows = [
        (str(number), f"{cost:.0f}", f"{rate:,.0f}", f"{slow_rate:,.0f}" if slow_rate else "not measured")
        for number, ((cost, rate), (_, slow_rate)) in enumerate(zip(free, confined, strict=True), 1)
    ]
    scaled = f" {confined[1][1] / confined[0][1]:.2f} times as much as one." if confined[0][1] else ""
    head = "workers", "CPU µs/request", "requests/s here", f"with {SHARE:.0%} of a core each"
    return [
        *table(head, rows),
        "",
        f"Two workers with a share each take{scaled}"
        if scaled
        else "Shares of a core need root, cgroups and usual priority.",
        "",
        f"{streams} streams over two workers: {' and '.join(map(str, streams_of))}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=400)
    options = parser.parse_args()
    allow_open_files()
    with tempfile.TemporaryDirectory(prefix="llmproxy-workers-") as folder:
        page = asyncio.run(measure(options.rounds, options.streams, Path(folder)))
    write("workers", ["# Workers", "", "See bench/workers.py.", "", *page])


if __name__ == "__main__":
    main()
