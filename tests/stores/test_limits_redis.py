"""Shared limits against a real Redis: exact, and honest when it is away."""

import asyncio
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from redis.crc import key_slot
from redis.exceptions import RedisError

from proxy.errors import Overloaded
from proxy.limiters.limits import Grant, Limits, Subject
from proxy.limiters.spec import LimitSpec, ScopeSpecs
from proxy.limiters.verdict import Refusal
from proxy.stores.limits_redis import RedisGrant, RedisLimits, connect

REDIS = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")

ALICE = Subject(key_id="alice", user_id="u1", model="qwen", ip="10.0.0.1")
# An answer is awaited this long where the test is not about time-outs.
PATIENCE = 10.0


class Server:
    """A Redis on a Unix socket that can be killed, stopped and started again."""

    def __init__(self, folder):
        self.socket = str(folder / "redis.sock")
        self.process = None

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            REDIS,
            *("--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        client = self.client()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await client.ping()
                    break
                except RedisError:
                    await asyncio.sleep(0.01)
        await client.aclose()

    def client(self):
        return connect(unix_socket_path=self.socket)

    def signal(self, number):
        self.process.send_signal(number)

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.kill()


@pytest.fixture
async def client(server):
    client = server.client()
    yield client
    await client.aclose()


@asynccontextmanager
async def limits_of(client, *, patience=PATIENCE, on_failure="fail_open", lease=30.0, **specs):
    limits = RedisLimits(client, ScopeSpecs(**specs), timeout=patience, on_failure=on_failure, lease=lease)
    await limits.start()
    yield limits
    await limits.close()


async def admitted(limits, subject, count, *, tokens=0):
    verdicts = [await limits.reserve(subject, tokens, 0.0) for _ in range(count)]
    return [verdict for verdict in verdicts if isinstance(verdict, RedisGrant)]


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)


async def test_nothing_configured_asks_nobody(tmp_path):
    client = connect(unix_socket_path=str(tmp_path / "nobody"))
    async with limits_of(client, on_failure="fail_closed") as limits:
        grant = await limits.reserve(ALICE, 10, 0.0)

        assert grant.headers == b""
        grant.settle(5, 1.0)
        grant.release(1.0)
        assert limits.running == 0
    await client.aclose()


@pytest.mark.parametrize("scope", ["global_", "per_key", "per_user", "per_model", "per_ip"])
@pytest.mark.parametrize(
    ("spec", "kind", "wait"),
    [
        (LimitSpec(requests_per_minute=3), "requests", 20.0),
        (LimitSpec(tokens_per_minute=30), "tokens", 20.0),
        (LimitSpec(max_concurrent=3), "concurrent", 1.0),
    ],
)
async def test_every_limit_works_in_every_scope(client, scope, spec, kind, wait):
    async with limits_of(client, **{scope: spec}) as limits:
        assert len(await admitted(limits, ALICE, 3, tokens=10)) == 3
        refusal = await limits.reserve(ALICE, 10, 0.0)

        assert (refusal.limiter, refusal.kind) == (scope.rstrip("_"), kind)
        assert refusal.retry_after == pytest.approx(wait, abs=1.0)


async def test_it_decides_and_tells_exactly_what_limits_in_memory_do(client):
    """Less than one unit flows in meanwhile: both must agree on every verdict and header."""
    specs = ScopeSpecs(
        global_=LimitSpec(requests_per_minute=0.06, burst_size=120, max_concurrent=9),
        per_key=LimitSpec(requests_per_minute=0.06, burst_size=40, max_concurrent=4),
        per_ip=LimitSpec(requests_per_second=0.0005, burst_size=35),
    )
    own = {
        "b": LimitSpec(tokens_per_minute=6),
        "c": LimitSpec(max_concurrent=2, requests_per_minute=0),
    }
    chance = random.Random(3)
    memory, running, refused = Limits(specs), [], Counter()
    limits = RedisLimits(client, specs, timeout=PATIENCE)
    await limits.start()

    for _ in range(400):
        if running and chance.random() < 0.4:
            pair = running.pop(chance.randrange(len(running)))
            used = chance.choice([None, 0, 0, 1])
            for grant in pair:
                grant.settle(used, 0.0)
                grant.release(0.0)
            continue
        key = chance.choice("aaabbc")
        subject = Subject(key, ip=f"10.0.0.{key}", limits=own.get(key))
        tokens = chance.choice([0] * 9 + [1, 50])
        pair = memory.reserve(subject, tokens, 0.0), await limits.reserve(subject, tokens, 0.0)

        assert [type(verdict) for verdict in pair] in ([Grant, RedisGrant], [Refusal, Refusal])
        told = [
            dict(line.split(b": ", 1) for line in verdict.headers.split(b"\r\n") if line) for verdict in pair
        ]
        for name in (b"ratelimit-policy", b"x-ratelimit-remaining-requests", b"x-ratelimit-remaining-tokens"):
            assert told[0].get(name) == told[1].get(name)
        if isinstance(pair[0], Grant):
            running.append(pair)
        else:
            assert (pair[0].limiter, pair[0].kind) == (pair[1].limiter, pair[1].kind)
            refused[pair[0].limiter, pair[0].kind] += 1
    assert {kind for _, kind in refused} == {"requests", "tokens", "concurrent"}
    assert {limiter for limiter, _ in refused} == {"global", "per_key", "per_ip"}
    for _, grant in running:
        grant.release(0.0)
    await limits.close()

    assert limits.running == 0
    assert [key async for key in client.scan_iter("*:slots")] == []


async def test_whoever_waits_as_told_is_let_through(client):
    async with limits_of(client, per_key=LimitSpec(requests_per_second=20, burst_size=1)) as limits:
        for _ in range(5):
            verdict = await limits.reserve(ALICE, 0, 0.0)
            if isinstance(verdict, Refusal):
                assert verdict.retry_after <= 0.05
                await asyncio.sleep(verdict.retry_after)
                verdict = await limits.reserve(ALICE, 0, 0.0)
            assert isinstance(verdict, RedisGrant)


@pytest.mark.parametrize(
    "spec",
    [
        LimitSpec(max_concurrent=10**30),
        LimitSpec(requests_per_second=1e308),
        LimitSpec(requests_per_second=1e-300, burst_size=10**30),
        LimitSpec(tokens_per_minute=1e-300),
    ],
)
async def test_a_key_with_an_absurd_limit_harms_nobody(client, spec):
    async with limits_of(client, per_user=LimitSpec(requests_per_minute=5)) as limits:
        absurd = Subject(key_id="absurd", limits=spec)
        grant = await limits.reserve(absurd, 1, 0.0)
        grant.settle(2**40, 0.0)
        grant.release(0.0)

        assert len(await admitted(limits, ALICE, 6)) == 5
        assert limits.outages == 0


async def test_debts_delay_the_next_request(client):
    async with limits_of(client, per_key=LimitSpec(tokens_per_minute=600)) as limits:
        grant = await limits.reserve(ALICE, 5000, 0.0)
        refusal = await limits.reserve(ALICE, 1, 0.0)
        assert refusal.retry_after == pytest.approx(440, abs=1)

        grant.settle(700, 0.0)
        grant.settle(9999, 0.0)

        refusal = await limits.reserve(ALICE, 100, 0.0)
        assert refusal.retry_after == pytest.approx(20, abs=1)


async def test_processes_share_what_is_used_and_a_new_configuration_keeps_it(client):
    spec = LimitSpec(requests_per_minute=10, max_concurrent=5)
    async with limits_of(client, per_key=spec) as one, limits_of(client, per_key=spec) as other:
        held = await admitted(one, ALICE, 3)
        assert len(await admitted(other, ALICE, 9)) == 2

        other.configure(ScopeSpecs(per_key=LimitSpec(requests_per_minute=10, max_concurrent=6)))
        assert len(await admitted(other, ALICE, 9)) == 1

        for grant in held:
            grant.release(0.0)
            grant.release(0.0)
        await admitted(one, Subject("bob"), 1)  # travels behind what was given back
        assert len(await admitted(other, ALICE, 9)) == 3
        refusal = await other.reserve(ALICE, 0, 0.0)
        assert refusal.fields()["x-ratelimit-remaining-requests"] == "1"


async def test_all_keys_lie_on_one_node_of_a_cluster_and_expire_by_themselves(client):
    spec = LimitSpec(requests_per_second=100, tokens_per_minute=60_000, max_concurrent=5)
    async with limits_of(client, global_=spec, per_key=spec, per_ip=spec) as limits:
        (grant,) = await admitted(limits, Subject("we{ird", ip="10.0.0.1"), 1, tokens=100)
        keys = [key async for key in client.scan_iter("*")]
        assert len(keys) == 6
        assert len({key_slot(key) for key in keys}) == 1
        assert all([0 < await client.ttl(key) <= 31 for key in keys])

        grant.release(0.0)

        async def is_empty():
            return await client.dbsize() == 0

        await until(is_empty)


async def test_a_lost_script_is_loaded_again(client):
    async with limits_of(client, per_key=LimitSpec(requests_per_minute=5)) as limits:
        await admitted(limits, ALICE, 1)
        await client.script_flush()

        assert len(await admitted(limits, ALICE, 9)) == 4
        assert limits.outages == 0


async def test_a_cancelled_request_gives_back_what_redis_granted(server, client):
    spec = LimitSpec(tokens_per_minute=600, max_concurrent=1)
    async with limits_of(client, per_key=spec) as limits:
        await admitted(limits, Subject("warm up"), 1)
        server.signal(signal.SIGSTOP)
        task = asyncio.create_task(limits.reserve(ALICE, 500, 0.0))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.signal(signal.SIGCONT)

        async def is_free():
            return len(await admitted(limits, ALICE, 1, tokens=600)) == 1

        await until(is_free)


@pytest.mark.parametrize("on_failure", ["fail_open", "fail_closed"])
async def test_without_a_redis_the_configured_happens_at_once(tmp_path, on_failure, caplog):
    client = connect(unix_socket_path=str(tmp_path / "nobody"))
    spec = LimitSpec(requests_per_minute=1, max_concurrent=1)
    async with limits_of(client, on_failure=on_failure, patience=0.05, per_key=spec) as limits:
        started = time.monotonic()
        outcomes = await asyncio.gather(
            *(limits.reserve(ALICE, 0, 0.0) for _ in range(50)), return_exceptions=True
        )

        assert time.monotonic() - started < 1.0
        assert not limits.is_up
        assert limits.outages == 1
        if on_failure == "fail_open":
            assert all(isinstance(outcome, RedisGrant) and outcome.headers == b"" for outcome in outcomes)
            assert (limits.unchecked, limits.turned_away, limits.running) == (50, 0, 50)
        else:
            assert all(isinstance(outcome, Overloaded) for outcome in outcomes)
            assert outcomes[0].headers["Retry-After"] == "1"
            assert (limits.unchecked, limits.turned_away, limits.running) == (0, 50, 0)
    assert [record.message for record in caplog.records] == ["limit store is down"]
    await client.aclose()


async def test_a_redis_that_says_nothing_delays_a_request_once_and_by_the_time_out(server, client):
    async with limits_of(client, patience=0.3, per_key=LimitSpec(requests_per_minute=5)) as limits:
        await admitted(limits, ALICE, 1)
        server.signal(signal.SIGSTOP)

        started = time.monotonic()
        await admitted(limits, ALICE, 1)
        first = time.monotonic() - started
        started = time.monotonic()
        await admitted(limits, ALICE, 100)
        others = time.monotonic() - started

        assert 0.2 < first < 1.0
        assert others < 0.2
        server.signal(signal.SIGCONT)


async def test_after_an_outage_limits_hold_again_and_running_streams_count(server, client):
    spec = LimitSpec(tokens_per_minute=600, max_concurrent=3)
    async with limits_of(client, patience=0.5, per_key=spec) as limits:
        (before,) = await admitted(limits, ALICE, 1)
        await server.kill()
        during = await admitted(limits, ALICE, 2)
        assert limits.unchecked == 2
        before.release(0.0)
        during[0].settle(450, 0.0)
        await server.start()

        async def is_renewed():
            return limits.is_up and await client.zcard("{llmproxy:limits}:per_key:alice:slots") == 2

        await until(is_renewed)
        assert len(await admitted(limits, ALICE, 5, tokens=10)) == 1
        refusal = await limits.reserve(Subject("alice"), 200, 0.0)
        assert refusal.fields()["x-ratelimit-remaining-tokens"] in ("140", "141", "142", "143", "144", "145")


HOLDER = """
import asyncio, sys
from proxy.limiters.limits import Subject
from proxy.limiters.spec import LimitSpec, ScopeSpecs
from proxy.stores.limits_redis import RedisLimits, connect

async def main():
    client = connect(unix_socket_path=sys.argv[1])
    specs = ScopeSpecs(per_key=LimitSpec(max_concurrent=2))
    limits = RedisLimits(client, specs, timeout=10.0, lease=float(sys.argv[2]))
    await limits.start()
    held = [await limits.reserve(Subject("alice"), 0, 0.0) for _ in range(2)]
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_leases_live_as_long_as_their_process_and_lapse_after_its_death(server, client):
    lease = 1.5
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, server.socket, str(lease)), stdout=asyncio.subprocess.PIPE
    )
    assert await holder.stdout.readline() == b"held\n"

    async with limits_of(client, lease=lease, per_key=LimitSpec(max_concurrent=2)) as limits:
        await asyncio.sleep(lease * 1.5)
        assert await admitted(limits, ALICE, 1) == []

        holder.kill()
        await holder.wait()
        died = time.monotonic()

        async def is_free():
            return len(await admitted(limits, ALICE, 2)) == 2

        await until(is_free)
        assert time.monotonic() - died < lease + 1.0


CLIENTS = """
import asyncio, json, sys, time
from proxy.limiters.limits import Subject
from proxy.limiters.spec import LimitSpec, ScopeSpecs
from proxy.limiters.verdict import Refusal
from proxy.stores.limits_redis import RedisLimits, connect

async def main():
    client = connect(unix_socket_path=sys.argv[1])
    specs = ScopeSpecs(per_key=LimitSpec(**json.loads(sys.argv[2])))
    limits = RedisLimits(client, specs, timeout=30.0)
    await limits.start()
    await limits.reserve(Subject("warm up"), 0, 0.0)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    asked, held = [], []
    end = time.time() + 3

    async def one():
        while time.time() < end:
            before = time.time()
            verdict = await limits.reserve(Subject("alice"), 0, before)
            asked.append((before, time.time()))
            if not isinstance(verdict, Refusal):
                start = time.time()
                await asyncio.sleep(0.05)
                held.append((start, time.time()))
                verdict.release(time.time())
            await asyncio.sleep(0.002)

    await asyncio.gather(*(one() for _ in range(100)))
    await limits.close()
    await client.aclose()
    print(json.dumps({"asked": [asked[0], asked[-1]], "held": held}), flush=True)

asyncio.run(main())
"""


async def two_hundred_clients(server, **spec):
    """What happened to 100 clients in each of two processes, at full speed for three seconds."""
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENTS, server.socket, json.dumps(spec)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 22,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert await process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"go\n")
    results = [json.loads(await process.stdout.readline()) for process in processes]
    for process in processes:
        await process.wait()
    return results


async def test_two_hundred_clients_on_two_processes_are_limited_to_the_request(server):
    results = await two_hundred_clients(server, requests_per_second=50, burst_size=20)

    asked = sorted(span for result in results for span in result["asked"])
    longest = asked[-1][1] - asked[0][0]
    shortest = max(before for before, _ in asked) - min(after for _, after in asked)
    admitted = sum(len(result["held"]) for result in results)
    assert 20 + 50 * shortest - 1 <= admitted <= 20 + 50 * longest + 1
    assert longest - shortest < 1.5  # of 3 s, or it shows nothing


async def test_two_hundred_clients_on_two_processes_share_every_slot(server):
    results = await two_hundred_clients(server, max_concurrent=7)

    spans = sorted(span for result in results for span in result["held"])
    assert len(spans) > 50
    assert max(sum(start <= at < end for start, end in spans) for at, _ in spans) == 7
