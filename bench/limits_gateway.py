"""What limits cost a whole gateway, in memory and in Redis: `python bench/limits_gateway.py`.

Two gateways that differ in `rate_limit.storage` alone take turns: CPU time of the gateway's
process per request, client and server aside. What Redis itself uses is told beside it.
"""

import argparse
import asyncio
import hashlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

from proxy.bench.client import Client, Target
from proxy.bench.run import WORKLOADS, body_of
from proxy.bench.servers import Server, configured, everything_on, started

STORES = ("memory", "redis")
WARM_SECONDS = 0.5


def settings(upstream: str, key: str, folder: Path, storage: str, redis: Path) -> dict[str, Any]:
    """Everything on, with global and per-key limits on requests, tokens and concurrency."""
    backend = {"name": "upstream", "url": upstream}
    whole = everything_on([backend], hashlib.sha256(key.encode()).hexdigest(), folder)
    plenty = 1_000_000
    whole["rate_limit"]["per_key"] |= {"max_concurrent": plenty}
    whole["rate_limit"] |= {"storage": storage}
    whole["storage"] = {"caches": [{"name": "default", "addr": f"unix:{redis}"}]}
    return whole


async def gateway(
    stack: AsyncExitStack, upstream: str, key: str, storage: str, redis: Path
) -> tuple[Target, Server]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmproxy-bench-")))
    whole = settings(upstream, key, folder, storage, redis)
    server = await stack.enter_async_context(configured(whole, folder))
    return Target.of(server.url, key), server


async def window(target: Target, clients: int, seconds: float, servers: Sequence[Server]) -> list[float]:
    """Microseconds of each process's CPU time for each request that was answered meanwhile."""
    request = target.request("POST", "/v1/chat/completions", body_of(WORKLOADS[0], "demo"))
    asking = [Client(target) for _ in range(clients)]
    stop = asyncio.Event()

    async def ask(client: Client) -> None:
        while not stop.is_set():
            answer = await client.ask(request)
            assert answer.status == 200, answer.status

    def answered() -> int:
        return sum(len(client.answers) for client in asking)

    async with asyncio.TaskGroup() as group:
        for client in asking:
            group.create_task(ask(client))
        await asyncio.sleep(WARM_SECONDS)
        began, before = answered(), [server.cpu_seconds() for server in servers]
        await asyncio.sleep(seconds)
        ended, after = answered(), [server.cpu_seconds() for server in servers]
        stop.set()
    for client in asking:
        client.close()
    return [(late - early) / (ended - began) * 1e6 for early, late in zip(before, after, strict=True)]


async def measure(redis: Path, redis_pid: int, rounds: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        upstream = (await stack.enter_async_context(started("demo-engine", "--port", "0"))).url
        key = f"sk-{secrets.token_hex(16)}"
        gateways = {storage: await gateway(stack, upstream, key, storage, redis) for storage in STORES}
        print(
            "| requests at a time | memory, µs | Redis, µs | ratio | Redis' own, µs |\n|---|---|---|---|---|"
        )
        for clients in (1, 16, 64, 200):
            found: dict[str, list[list[float]]] = {storage: [] for storage in STORES}
            for number in range(rounds):
                for storage in STORES if number % 2 else STORES[::-1]:
                    target, server = gateways[storage]
                    both = server, Server("", redis_pid)
                    found[storage].append(await window(target, clients, seconds, both))
            print(row(clients, found["memory"], found["redis"]), flush=True)


def row(clients: int, memory: list[list[float]], redis: list[list[float]]) -> str:
    ratio = median(late[0] / early[0] for early, late in zip(memory, redis, strict=True))
    middle = [median(each[0] for each in some) for some in (memory, redis)]
    own = median(each[1] for each in redis)
    return f"| {clients} | {middle[0]:.0f} | {middle[1]:.0f} | {ratio:.2f} | {own:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU per request with limits in memory and in Redis.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    server = shutil.which("redis-server")
    if server is None:
        print("redis-server is not installed: nothing to compare with")
        return
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        command = [server, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not socket.exists():
                sleep(0.01)
            asyncio.run(measure(socket, process.pid, given.rounds, given.seconds))
            process.terminate()


if __name__ == "__main__":
    main()
