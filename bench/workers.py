"""Several worker processes beside one: CPU per request, throughput, and how evenly streams are spread.

    python bench/workers.py [--rounds 5] [--streams 400]

One worker and two take turns with the same requests. Throughput says something only
where engine, clients and workers have cores of their own: on a machine with two,
two workers share them with the load. What a request costs a worker holds anywhere:
as long as that is the same, N cores take N times as much. The page goes to
bench/results/workers.md.
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

REQUESTS = 4_000
CONNECTIONS = 64


async def window(each: Gateway) -> tuple[float, float]:
    """CPU in µs per request, and requests a second."""
    asked = [load.request(0, load.chat())] * REQUESTS
    cpu, began = each.cpu_seconds(), perf_counter()
    await load.ask_all(each.port, asked, CONNECTIONS)
    return (each.cpu_seconds() - cpu) / REQUESTS * 1e6, REQUESTS / (perf_counter() - began)


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
        found: list[list[tuple[float, float]]] = [[], []]
        for _ in range(rounds):
            for each, values in zip(gateways, found, strict=True):
                values.append(await window(each))
        rows = [
            (str(number), f"{median(c for c, _ in values):.0f}", f"{median(r for _, r in values):,.0f}")
            for number, values in enumerate(found, 1)
        ]
        shares = await spread(gateways[1], streams)
    return [
        *table(("workers", "CPU µs/request", "requests/s here"), rows),
        "",
        f"{streams} streams over two workers: {' and '.join(map(str, shares))}.",
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
