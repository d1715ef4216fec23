"""The long run: streams and short requests with faults among them, and nothing may grow or get lost.

    python tests/soak.py --minutes 30

Fifty streams and twenty short requests a second go through a gateway with keys,
limits, metrics and a usage webhook to the demo engine. One in a hundred each is
aborted by the client, cut, stalled or refused by the upstream, or malformed. At
the end memory, files and tasks must be where they were, and every request that
the engine served must have exactly one usage record.

Memory is looked at once it has settled. The one cache that a running gateway fills
with time, by a Date line a second, is filled beforehand; the others and the free
lists by fast rounds of everything, until nothing grows any more. Then the blocks
that Python has in use must stay as many: what is kept by mistake is kept in blocks,
while the allocator's share of the process grows by a page whenever a moment is
fuller than all before, and has its own, wider bound. Beside the gateway the engine
is asked directly now and then, because a machine that is busy with something else
makes everything late.
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from statistics import median, quantiles
from time import monotonic

from kit.client import Ended, RawClient, Silent, ask
from kit.eventually import eventually
from kit.gateway import ROOT, Gateway, free_port, settings
from kit.receiver import Receiver
from kit.wire import get, post

from proxy.wire.http1 import MAX_KNOWN_LINES

STREAMS = 50
SHORT_PER_SECOND = 20
FAULT_SHARE = 0.01  # of each kind

# Long enough for an engine on a machine that is busy with something else.
IDLE_TIMEOUT = 15.0
KEY = "sk-soak-0123456789abcdef"
BEARER = b"Authorization: Bearer " + KEY.encode()

# Blocks an hour: at 64 bytes each 1 MiB, a tenth of a block for each request.
MAX_BLOCKS_PER_HOUR = 16 * 1024
# The process itself, in the whole run; 0.6 to 0.9 MiB were seen in half an hour, most of it early.
MAX_GROWTH = 2 * 1024 * 1024
# Below this length the slope is noise, and only the growth counts: the collector frees 20,000 at a time.
SLOPE_MINUTES = 20

# The fast rounds before: so many requests each, until in so many of them memory grew by less than so much.
# It takes 5 to 15; then the allocator has seen the fullest moment there will be.
ROUND_REQUESTS = 1200
FLAT_ROUNDS, FLAT_BYTES = 4, 128 * 1024
MAX_ROUNDS = 40

# Seconds between two questions that go to the engine directly.
DIRECT_PAUSE = 1.0

FAULTS = ("abort", "cut", "stall", "refused", "malformed")
MARKS = {"cut": "[[cut 20]]", "stall": "[[stall 20]]", "refused": "[[status 503]]"}


@dataclass
class Tally:
    """What the clients saw."""

    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_event: list[tuple[float, float]] = field(default_factory=list)
    direct: list[tuple[float, float]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    blocks: list[tuple[float, float]] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


def body(content: str, *, stream: bool) -> bytes:
    return json.dumps(
        {
            "model": "demo",
            "stream": stream,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": content}],
        }
    ).encode()


def pick(dice: random.Random) -> str:
    at = dice.random()
    for number, fault in enumerate(FAULTS, 1):
        if at < number * FAULT_SHARE:
            return fault
    return "good"


async def one(port: int, kind: str, tally: Tally, *, stream: bool, pace: str = "40ms") -> None:
    """One request of a kind; what does not end as it must goes to `wrong`."""
    text = f"[[count 100]] [[slow {pace}]]" if stream else "[[count 30]]"
    request = post(b"/v1/chat/completions", body(f"{text} {MARKS.get(kind, '')}", stream=stream), BEARER)
    if kind == "malformed":
        request = request.replace(b"Content-Length: ", b"Content-Length: +")
    async with await RawClient.connect(port) as client:
        begun = monotonic()
        client.write(request)
        if kind == "abort":
            await abort(client, stream=stream)
            tally.seen[kind] += 1
            return
        if stream and kind == "good":
            await client.read_head()
            await client.read_until(b"data: ", 30)
            tally.first_event.append((begun, monotonic() - begun))
            ended = await client.read_until(b"\r\n0\r\n\r\n", 60)
            right = b"data: [DONE]" in ended
        else:
            response = await client.read_response(b"POST", 30)
            right = is_right(kind, response.status, response.is_complete)
    tally.seen[kind] += 1
    if not right:
        tally.wrong.append(f"{kind} stream={stream}")


async def abort(client: RawClient, *, stream: bool) -> None:
    """Leave in the middle of a stream; of a short answer only its beginning can be had."""
    await client.read_until(b"data: " if stream else b"HTTP/1.1", 30)
    client.reset()


def is_right(kind: str, status: int, is_complete: bool) -> bool:
    match kind:
        case "good":
            return status == 200 and is_complete
        case "cut" | "stall":
            return not is_complete or status in (502, 504)
        case "refused":
            return status == 503 and is_complete
    return status == 400 and is_complete


async def guarded(port: int, kind: str, tally: Tally, *, stream: bool, pace: str = "40ms") -> None:
    try:
        await one(port, kind, tally, stream=stream, pace=pace)
    except (Ended, Silent, OSError) as failure:
        tally.wrong.append(f"{kind} stream={stream}: {failure!r:.200}")


async def fill_known_lines(gateway: Gateway) -> None:
    """As many Date lines as a gateway remembers; six blocks each, in half an hour by themselves."""
    dates = [b"Date: " + formatdate(second, usegmt=True).encode() for second in range(MAX_KNOWN_LINES)]
    for at in range(0, MAX_KNOWN_LINES, 128):
        answer = await ask(gateway.port, get(b"/metrics", *dates[at : at + 128]), 60)
        assert answer.status == 200


async def warm_up(gateway: Gateway, tally: Tally) -> None:
    """Every quick kind as fast as it goes, until memory stays where it is."""
    await fill_known_lines(gateway)
    gate = asyncio.Semaphore(STREAMS)
    kinds = [(kind, stream) for kind in ("good", *FAULTS) if kind != "stall" for stream in (False, True)]

    async def gated(kind: str, stream: bool) -> None:
        async with gate:
            await guarded(gateway.port, kind, tally, stream=stream, pace="1ms")

    peaks = [gateway.own_bytes]
    while len(peaks) < MAX_ROUNDS:
        await asyncio.gather(*(gated(*kinds[number % len(kinds)]) for number in range(ROUND_REQUESTS)))
        peaks.append(max(peaks[-1], gateway.own_bytes))
        if len(peaks) > FLAT_ROUNDS and peaks[-1] - peaks[-1 - FLAT_ROUNDS] < FLAT_BYTES:
            break
    print(
        f"warm after {len(peaks) - 1} rounds: {[round(peak / 1024**2, 1) for peak in peaks]} MiB", flush=True
    )


async def ask_directly(engine_port: int, tally: Tally, until: float) -> None:
    """What a first event takes without a gateway, now and then."""
    request = post(b"/v1/chat/completions", body("[[count 5]]", stream=True))
    while monotonic() < until:
        async with await RawClient.connect(engine_port) as client:
            begun = monotonic()
            client.write(request)
            await client.read_until(b"data: ", 60)
            tally.direct.append((begun, monotonic() - begun))
            await client.read_until(b"\r\n0\r\n\r\n", 60)
        await asyncio.sleep(DIRECT_PAUSE)


async def stream_after_stream(port: int, tally: Tally, until: float, dice: random.Random) -> None:
    await asyncio.sleep(dice.random() * 4)
    while monotonic() < until:
        await guarded(port, pick(dice), tally, stream=True)


async def short_requests(port: int, tally: Tally, until: float, dice: random.Random) -> None:
    async with asyncio.TaskGroup() as group:
        while monotonic() < until:
            group.create_task(guarded(port, pick(dice), tally, stream=False))
            await asyncio.sleep(1 / SHORT_PER_SECOND)


async def watch(gateway: Gateway, tally: Tally, until: float) -> None:
    said = monotonic()
    while monotonic() < until:
        await asyncio.sleep(5)
        tally.memory.append((monotonic(), gateway.own_bytes))
        tally.files.append(gateway.open_files)
        tally.blocks.append((monotonic(), (await figures(gateway))["llmproxy_memory_blocks"]))
        if monotonic() - said > 60:
            said = monotonic()
            mebibytes = gateway.own_bytes / 1024**2
            blocks = tally.blocks[-1][1]
            print(
                f"{dict(tally.seen)} {mebibytes:.1f} MiB {blocks:.0f} blocks {tally.files[-1]} files",
                flush=True,
            )


def growth_per_hour(memory: list[tuple[float, float]]) -> float:
    """Median of all slopes (Theil and Sen): one garbage collection does not move it."""
    step = max(1, len(memory) // 200)
    points = memory[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
    ]
    return median(slopes) * 3600


def configuration(engine_port: int, receiver_port: int) -> dict[str, object]:
    hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver_port}/u", "batch_size": 20}
    return settings(
        engine_port,
        auth={"enabled": True, "pipeline": [{"type": "static", "keys": [{"key": KEY, "name": "soak"}]}]}
        | {"skip_paths": ["/metrics"]},
        routing={
            "timeouts": {"first_byte": "10s", "idle": f"{IDLE_TIMEOUT}s"},
            "breaker": {"enabled": False},
        },
        rate_limit={"enabled": True, "per_key": {"requests_per_second": 10_000, "max_concurrent": 1000}},
        usage={"enabled": True, "reporters": [hook]},
        log={"level": "warning"},
    )


async def engine_stats(port: int) -> dict[str, int]:
    stats: dict[str, int] = json.loads((await ask(port, get(b"/stats"))).body)
    return stats


@contextmanager
def demo_engine() -> Iterator[int]:
    """The demo engine as a process of its own; its port."""
    port = free_port()
    engine = subprocess.Popen([sys.executable, "-m", "proxy", "demo-engine", "--port", str(port)], cwd=ROOT)
    try:
        yield port
    finally:
        engine.terminate()
        engine.wait()


async def soak(minutes: float, folder: Path, engine_port: int) -> list[str]:
    """Run, print what was seen, and return what is wrong."""
    async with Receiver() as receiver:
        gateway = Gateway(folder, configuration(engine_port, receiver.port)).start()
        try:
            return await measured(gateway, engine_port, receiver, minutes)
        finally:
            gateway.stop()


async def measured(gateway: Gateway, engine_port: int, receiver: Receiver, minutes: float) -> list[str]:
    tally, dice = Tally(), random.Random(1)
    await eventually(lambda: accepts(engine_port), "the demo engine listens", 20)
    await guarded(gateway.port, "good", tally, stream=True)
    await warm_up(gateway, tally)
    await asyncio.sleep(5)
    idle_files, idle_tasks, begun = gateway.open_files, await tasks(gateway), monotonic()
    until = begun + minutes * 60
    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(stream_after_stream(gateway.port, tally, until, random.Random(dice.random())))
        group.create_task(short_requests(gateway.port, tally, until, dice))
        group.create_task(watch(gateway, tally, until))
        group.create_task(ask_directly(engine_port, tally, until))
    wrong = list(tally.wrong)
    wrong += await leftovers(gateway, engine_port, idle_files, idle_tasks)
    served = (await engine_stats(engine_port))["requests"] - len(tally.direct)
    try:
        await receiver.wait_records(served, 30)
    except AssertionError:
        wrong.append(f"{served} requests served, {len(receiver.ids)} records")
    await asyncio.sleep(2)  # a record too many would come now
    if len(receiver.ids) != served or len({r["request_id"] for r in receiver.records}) != served:
        wrong.append(f"{served} requests served, {len(receiver.ids)} records with different ids")
    wrong += trends(tally, begun, until)
    print(f"{dict(tally.seen)}; {served} served, {len(receiver.ids)} records, {len(receiver.records)} sent")
    return wrong + gateway.new_alarms()


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def tasks(gateway: Gateway) -> float:
    """What runs in the gateway's event loop, the question itself included."""
    return (await figures(gateway))["llmproxy_event_loop_tasks"]


async def figures(gateway: Gateway) -> dict[str, float]:
    text = (await ask(gateway.port, get(b"/metrics"), 60)).body.decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def leftovers(gateway: Gateway, engine_port: int, idle_files: int, idle_tasks: float) -> list[str]:
    wrong = []

    async def is_idle() -> bool:
        return gateway.open_files <= idle_files + 5 and await tasks(gateway) <= idle_tasks + 5

    try:
        await eventually(is_idle, "files and tasks gone", 20)
    except AssertionError:
        wrong.append(f"{gateway.open_files} files open, {idle_files} before")
        wrong.append(f"{await tasks(gateway)} tasks, {idle_tasks} before")
    print(f"{idle_files} files and {idle_tasks:.0f} tasks before, ", end="")
    print(f"{gateway.open_files} and {await tasks(gateway):.0f} at the end")
    if in_flight := (await engine_stats(engine_port))["in_flight"]:
        wrong.append(f"{in_flight} requests still run in the engine")
    for name, value in (await figures(gateway)).items():
        if name.startswith("llmproxy_inflight") and value > 1:
            wrong.append(f"after the end: {name} {value}")
    return wrong


def trends(tally: Tally, begun: float, until: float) -> list[str]:
    """Memory, and the delay of first events in the first and the last sixth."""
    wrong, length = [], until - begun
    settled = [point for point in tally.blocks if point[0] > begun + length / 6]
    if len(settled) > 20 and length >= SLOPE_MINUTES * 60:
        growth = growth_per_hour(settled)
        print(f"{median(blocks for _, blocks in settled):.0f} blocks in use, {growth:+.0f} an hour")
        if growth > MAX_BLOCKS_PER_HOUR:
            wrong.append(f"blocks in use grow by {growth:.0f} an hour")
    if tally.memory:
        first, last = tally.memory[0][1], tally.memory[-1][1]
        print(f"{first / 1024**2:.1f} MiB at first, {last / 1024**2:.1f} MiB at last")
        if last - first > MAX_GROWTH:
            wrong.append(f"memory grew by {last - first} bytes")
    before, after = ends(tally.first_event, begun, until)
    direct_before, direct_after = ends(tally.direct, begun, until)
    if before and after and direct_before and direct_after:
        print(
            f"first event, nine in ten within: {before * 1000:.0f} ms at first, {after * 1000:.0f} ms at last"
        )
        print(f"from the engine directly: {direct_before * 1000:.0f} ms, {direct_after * 1000:.0f} ms")
        later = max(direct_after / direct_before, 1.0)  # the machine's part in it
        if after > before * 1.1 * later + 0.05:
            wrong.append(f"first events come later: {before:.3f} s, then {after:.3f} s")
    return wrong


def ends(delays: list[tuple[float, float]], begun: float, until: float) -> tuple[float, float]:
    """Within what nine in ten came in the first sixth of the run, and in its last one; 0.0 for too few."""
    sixth = (until - begun) / 6
    early = [delay for at, delay in delays if at < begun + sixth]
    late = [delay for at, delay in delays if at > until - sixth]
    if min(len(early), len(late)) < 20:
        return 0.0, 0.0
    return quantiles(early, n=10)[8], quantiles(late, n=10)[8]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the soak test.")
    parser.add_argument("--minutes", type=float, default=30.0)
    minutes = parser.parse_args().minutes
    with demo_engine() as port, tempfile.TemporaryDirectory(prefix="llmproxy-soak-") as folder:
        wrong = asyncio.run(soak(minutes, Path(folder) / "gateway", port))
    for line in wrong[:50]:
        print(f"WRONG: {line}")
    print("soak: " + (f"{len(wrong)} things are wrong" if wrong else "good"))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
