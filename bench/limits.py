"""What limits cost per request, in memory and in Redis.

    python bench/limits.py

Reserve, settle, release and the header lines of one request, with global and
per-key limits on requests, tokens and concurrency. CPU time, best of three. Redis
is measured where `redis-server` is installed.
"""

import argparse
import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from proxy.limiters.estimate import estimate_tokens
from proxy.limiters.limits import Grant, Limits, Subject
from proxy.limiters.queue import Queue, Ticket
from proxy.limiters.spec import LimitSpec, ScopeSpecs
from proxy.stores.limits_redis import RedisGrant, RedisLimits, connect

SPEC = LimitSpec(requests_per_second=1e6, tokens_per_minute=1e12, max_concurrent=10_000)
SPECS = ScopeSpecs(global_=LimitSpec(requests_per_second=1e9), per_key=SPEC)
ROUNDS = 20_000


def microseconds(once: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        for _ in range(ROUNDS):
            once()
        best = min(best, time.process_time() - started)
    return best / ROUNDS * 1e6


def in_memory(keys: int) -> float:
    limits = Limits(SPECS)
    subjects = cycle([Subject(f"key {number}") for number in range(keys)])
    for _ in range(keys):
        request(limits, next(subjects))
    return microseconds(lambda: request(limits, next(subjects)))


def request(limits: Limits, subject: Subject) -> bytes:
    grant = limits.reserve(subject, 100, 1.0)
    assert isinstance(grant, Grant)
    grant.settle(200, 1.0)
    grant.release(1.0)
    return grant.headers


def queued(keys: int, waiting: int) -> float:
    """One request in and one out of a queue that is kept full."""
    queue = Queue(1, waiting)
    numbers = cycle(range(keys))
    running: list[Callable[[], None]] = []
    for _ in range(waiting + 1):
        enter(queue, str(next(numbers)), running)

    def once() -> None:
        running.pop(0)()
        enter(queue, str(next(numbers)), running)

    return microseconds(once)


def enter(queue: Queue, key: str, running: list[Callable[[], None]]) -> None:
    def decided(_is_admitted: bool) -> None:
        running.append(leave)

    ticket = queue.enter(key, "session", now=1.0, decided=decided)
    assert isinstance(ticket, Ticket)

    def leave() -> None:
        ticket.leave(1.0)

    if ticket.is_admitted:
        running.append(leave)


async def in_redis(socket: Path, clients: int) -> float:
    client = connect(unix_socket_path=str(socket))
    limits = RedisLimits(client, SPECS, timeout=5.0)
    await limits.start()

    async def ask(number: int, times: int) -> None:
        subject = Subject(f"key {number}")
        for _ in range(times):
            grant = await limits.reserve(subject, 100, 1.0)
            assert isinstance(grant, RedisGrant) and grant.headers
            grant.settle(200, 1.0)
            grant.release(1.0)

    times = ROUNDS // 4 // clients
    await ask(0, 100)
    started = time.process_time()
    await asyncio.gather(*(ask(number, times) for number in range(clients)))
    spent = time.process_time() - started
    await limits.close()
    await client.aclose()
    return spent / (times * clients) * 1e6


def with_redis(server: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        command = [server, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not socket.exists():
                time.sleep(0.01)
            for clients in (1, 4, 16, 64, 200):
                spent = asyncio.run(in_redis(socket, clients))
                print(f"| Redis, {clients} at once | {spent:.1f} |")
            process.terminate()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print("| per request | CPU in µs |\n|---|---|")
    for keys in (1, 1_000, 100_000):
        print(f"| memory, {keys:,} keys | {in_memory(keys):.1f} |")
    for keys, waiting in ((1, 100), (100, 100), (1_000, 10_000)):
        print(f"| queue, {keys:,} keys, {waiting:,} waiting | {queued(keys, waiting):.1f} |")
    body = b'{"messages": "' + b"word " * 50_000 + b'", "tools": []}'
    print(f"| estimate, 256 KB body | {microseconds(lambda: estimate_tokens(body)):.1f} |")
    if server := shutil.which("redis-server"):
        with_redis(server)


if __name__ == "__main__":
    main()
