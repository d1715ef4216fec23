"""Starting, reloading, draining and dying: nobody's request is lost, and every ending is honest."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
from collections import defaultdict
from time import monotonic

import pytest
from kit.client import Ended, RawClient, Silent, ask, outcome
from kit.eventually import eventually
from kit.gateway import Gateway, free_port, settings
from kit.receiver import Receiver
from kit.upstream import ScriptedUpstream, replies
from kit.wire import Response, answer, chunk, chunked, get, post, sse_head

STREAM_BODY = b'{"model":"m","stream":true}'

# How often the gateway is killed under load; fifty times prove the promise.
KILLS = int(os.environ.get("LLMPROXY_KILLS", "4"))

# What a kill may cost: one interval between commits, and what a loaded machine adds to a commit.
UNCOMMITTED = 0.05 + 0.15

SERVED_ALL = {(200, True)}


async def stream_of_ten(connection, request):
    connection.write(sse_head())
    for number in range(10):
        connection.write(chunk(b"data: %d\n\n" % number))
        await asyncio.sleep(0.01)
    connection.write(chunked())


async def endless(connection, request):
    connection.write(sse_head())
    while connection.ending is None and not connection.transport.is_closing():
        connection.write(chunk(b"data: 1\n\n"))
        await asyncio.sleep(0.02)


def hook(receiver_port, **more):
    return {
        "enabled": True,
        "reporters": [
            {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver_port}/u", "timeout": "1s"}
        ],
        **more,
    }


# --- starting ----------------------------------------------------------------


def run_to_end(tmp_path, configuration, **environ):
    gateway = Gateway(tmp_path / "ends", configuration, environ=environ)
    with pytest.raises(AssertionError):
        gateway.start()
    assert gateway.process.returncode is not None
    return gateway


def test_a_configuration_with_mistakes_is_refused_with_all_of_them(tmp_path):
    configuration = settings(1, servr={"x": 1}, log={"level": "loud"}, routing={"timeouts": {"idle": "soon"}})

    gateway = run_to_end(tmp_path, configuration)

    assert gateway.process.returncode == 2
    for word in ("servr", "loud", "soon"):
        assert word in gateway.output
    assert "Traceback" not in gateway.output


def test_a_port_in_use_is_said_plainly(tmp_path):
    gateway = Gateway(tmp_path / "busy", settings(1))
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", gateway.port))
        taken.listen()

        process = subprocess.run(
            gateway.command, cwd=gateway.folder, env=gateway.environ, capture_output=True, timeout=20
        )

    assert process.returncode not in (0, None)
    assert b"in use" in process.stderr + process.stdout
    assert b"Traceback" not in process.stderr


def test_python_parsers_are_not_used_silently(tmp_path):
    """Without its C parser aiohttp reads some bytes differently: refuse, or say so loudly."""
    gateway = Gateway(tmp_path / "pure", settings(1), environ={"AIOHTTP_NO_EXTENSIONS": "1"})
    try:
        with contextlib.suppress(AssertionError):
            gateway.start()
        assert gateway.process.poll() not in (None, 0) or "C extensions" in gateway.output
    finally:
        gateway.kill()


# --- reloading ---------------------------------------------------------------


async def test_reloading_under_load_fails_nobody(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port))
    upstream.on_request = stream_of_ten
    until = monotonic() + 3
    results = []

    async def client_of(number):
        while monotonic() < until:
            async with await RawClient.connect(gateway.port) as client:
                for _ in range(4):
                    response = await client.ask(post(body=STREAM_BODY))
                    results.append((response.status, response.is_complete))

    async def reloads():
        for _ in range(12):
            await asyncio.sleep(0.22)
            gateway.signal(signal.SIGHUP)

    await asyncio.gather(reloads(), *(client_of(number) for number in range(12)))

    assert set(results) == SERVED_ALL
    assert len(results) > 100
    assert gateway.is_running


async def test_a_bad_file_keeps_the_old_configuration_and_says_why(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port))
    for broken, word in ((settings(backend_port, surprise=1), "surprise"), (None, "")):
        if broken is None:
            gateway.config_file.write_text("{ not: [a file")
        else:
            gateway.write(broken)
        said = len(gateway.output)

        gateway.signal(signal.SIGHUP)

        await eventually(lambda said=said: len(gateway.output) > said, "the reason in the log")
        await eventually(lambda said=said, word=word: word in gateway.output[said:], f"{word} in the log")
        assert (await ask(gateway.port, post())).status == 200
    assert gateway.is_running


async def test_a_reload_takes_effect_and_running_streams_stay(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port))
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"old"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with (
        ScriptedUpstream(replies(answer(b"new"))) as other,
        await RawClient.connect(gateway.port) as client,
    ):
        await client.send(post(body=STREAM_BODY))
        await client.read_until(b"old")
        gateway.write(settings(other.port))
        gateway.signal(signal.SIGHUP)

        async def is_new():
            return (await ask(gateway.port, post(), 0.5)).body == b"new"

        await eventually(is_new, "the new backend answers")
        go_on.set()
        assert (await client.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")


async def test_a_reload_forgives_no_limit(new_gateway, upstream, backend_port):
    limits = {"enabled": True, "global": {"enabled": True, "requests_per_minute": 1, "burst_size": 1}}
    gateway = new_gateway(settings(backend_port, rate_limit=limits))
    assert [(await ask(gateway.port, post())).status for _ in range(2)] == [200, 429]
    said = len(gateway.output)

    gateway.signal(signal.SIGHUP)

    await eventually(lambda: "reload" in gateway.output[said:].lower(), "the reload in the log")
    assert (await ask(gateway.port, post())).status == 429


# --- draining ----------------------------------------------------------------


async def test_a_drain_lets_streams_finish_and_nobody_in(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port, server={"shutdown_timeout": "8s"}))
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(20)]
        for stream in streams:
            await stream.send(post(body=STREAM_BODY))
            await stream.read_until(b"begun")
        kept = await stack.enter_async_context(await RawClient.connect(gateway.port))
        assert (await kept.ask(get(b"/ready"))).status == 200

        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "new connections refused", 3)

        with contextlib.suppress(Ended, ConnectionError):  # an idle connection may have been closed instead
            assert (await kept.ask(get(b"/ready"), 2)).status == 503
        assert gateway.is_running
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert await asyncio.to_thread(gateway.wait, 5) == 0


async def test_what_outlives_the_drain_is_ended_honestly(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port, server={"shutdown_timeout": "1s"}))

    async def script(connection, request):
        await (endless if request.target == b"/v1/stream" else replies(b"", "stall"))(connection, request)

    upstream.on_request = script
    stream = asyncio.ensure_future(outcome(gateway.port, post(b"/v1/stream", STREAM_BODY)))
    waiting = asyncio.ensure_future(outcome(gateway.port, post(b"/v1/waits")))
    await upstream.wait_requests(2)
    begun = monotonic()

    gateway.signal(signal.SIGTERM)
    status = await asyncio.to_thread(gateway.wait, 6)

    assert status == 0
    assert 0.9 <= monotonic() - begun < 3
    streamed, waited = await stream, await waiting
    assert isinstance(streamed, Response)
    assert not streamed.is_complete
    assert isinstance(waited, str) or (waited.status in (502, 503, 504) and waited.is_complete)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_is_immediate(new_gateway, upstream, backend_port, second):
    gateway = new_gateway(settings(backend_port, server={"shutdown_timeout": "60s"}))
    upstream.on_request = endless
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=STREAM_BODY))
        await client.read_until(b"data")
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "the drain", 3)
        begun = monotonic()

        gateway.signal(second)
        await asyncio.to_thread(gateway.wait, 5)

        assert monotonic() - begun < 1.5
        assert b"0\r\n\r\n" not in await client.read_to_end(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_gateway_ends_at_once(new_gateway, upstream, backend_port, number):
    gateway = new_gateway(settings(backend_port, server={"shutdown_timeout": "60s"}))
    async with await RawClient.connect(gateway.port) as client:
        assert (await client.ask(post())).status == 200
        begun = monotonic()

        gateway.signal(number)

        assert await asyncio.to_thread(gateway.wait, 5) == 0
        assert monotonic() - begun < 2


# --- accounting over an end --------------------------------------------------


async def test_records_survive_an_end_while_the_receiver_is_away(
    new_gateway, tmp_path, upstream, backend_port
):
    port = free_port()
    gateway = Gateway(tmp_path / "spooled", settings(backend_port, usage=hook(port))).start()
    ids = [b"kept-%d" % number for number in range(30)]
    for request_id in ids:
        assert (await ask(gateway.port, post(b"/v1/x", b"{}", b"X-Request-Id: " + request_id))).status == 200
    assert gateway.stop() == 0

    async with Receiver(port=port) as receiver:
        gateway.start()
        try:
            await receiver.wait_records(30, 40)
        finally:
            assert await asyncio.to_thread(gateway.stop) == 0
    assert {record["request_id"].encode() for record in receiver.records} == set(ids)
    assert gateway.new_alarms() == []


async def test_kill_9_under_load_costs_at_most_one_commit(tmp_path, upstream, backend_port):
    served: dict[str, tuple[int, float]] = {}  # request id: before which kill, when
    kills: list[float] = []
    async with Receiver() as receiver:
        gateway = Gateway(tmp_path / "killed", settings(backend_port, usage=hook(receiver.port)))

        async def load(number):
            sent = 0
            while gateway.is_running:
                sent += 1
                generation = len(kills)
                name = f"k{generation}-c{number}-{sent}"
                with contextlib.suppress(Ended, Silent, OSError, TimeoutError):
                    response = await ask(
                        gateway.port, post(b"/v1/x", b"{}", b"X-Request-Id: " + name.encode()), 3
                    )
                    if (response.status, response.is_complete) == (200, True):
                        served[name] = generation, monotonic()
                await asyncio.sleep(0.04)

        for _ in range(KILLS):
            gateway.start()
            clients = [asyncio.ensure_future(load(number)) for number in range(10)]
            await asyncio.sleep(0.8)
            kills.append(monotonic())
            gateway.process.kill()
            await asyncio.to_thread(gateway.process.wait)
            await asyncio.gather(*clients)
        gateway.start()
        with contextlib.suppress(AssertionError):
            await receiver.wait_records(len(served), 6)
        assert await asyncio.to_thread(gateway.stop) == 0

    seen = defaultdict(set)
    for record in receiver.records:
        seen[record["request_id"]].add(record["id"])
    assert [ids for ids in seen.values() if len(ids) > 1] == []
    missing = [kills[which] - at for name, (which, at) in served.items() if name not in seen]
    assert [before_the_kill for before_the_kill in missing if before_the_kill > UNCOMMITTED] == []
    assert len(served) > KILLS * 10  # 160 each on an idle machine


# --- when the machine is short of something ----------------------------------


async def test_without_files_left_it_recovers_by_itself(new_gateway, upstream, backend_port):
    gateway = new_gateway(settings(backend_port))
    assert (await ask(gateway.port, get())).status == 200
    allowed = gateway.open_files + 30
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (allowed, allowed))
    upstream.on_request = replies(b"", "stall")

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(80):
            with contextlib.suppress(OSError, TimeoutError):
                client = await stack.enter_async_context(await RawClient.connect(gateway.port))
                client.write(post())
        await asyncio.sleep(0.5)
        assert gateway.is_running

    upstream.on_request = replies(answer())
    await eventually(lambda: gateway.open_files < allowed - 20, "files closed again", 15)

    async def is_served():
        return (await ask(gateway.port, get())).status == 200

    await eventually(is_served, "served again", 5)
    for _ in range(20):
        assert (await ask(gateway.port, get())).status == 200
    assert len(gateway.output) < 1_000_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_costs_no_request_and_heals(new_gateway, small_disk, upstream, backend_port):
    port = free_port()
    usage = hook(port, spool={"path": str(small_disk / "usage.db")})
    gateway = new_gateway(settings(backend_port, usage=usage))
    filler = small_disk / "filler"

    async def ask_ten():
        return {(await ask(gateway.port, post(b"/v1/x", b"{}"))).status for _ in range(10)}

    assert await ask_ten() == {200}
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert await ask_ten() == {200}
    filler.unlink()
    assert await ask_ten() == {200}

    async with Receiver(port=port) as receiver:
        await receiver.wait_records(30, 40)
    assert len(receiver.ids) == 30
    assert gateway.is_running


async def test_a_spool_that_is_no_database_does_not_stop_the_start(
    new_gateway, tmp_path, upstream, backend_port
):
    """A corrupt file is never deleted, and needs no operator."""
    spool = tmp_path / "usage.db"
    spool.write_bytes(b"this is no database" * 1000)
    async with Receiver() as receiver:
        gateway = new_gateway(settings(backend_port, usage=hook(receiver.port, spool={"path": str(spool)})))

        assert (await ask(gateway.port, post())).status == 200
        await receiver.wait_records(1)

    aside = [
        path for path in tmp_path.glob("usage.db*") if path.read_bytes().startswith(b"this is no database")
    ]
    assert aside


# --- systemd -----------------------------------------------------------------


async def test_systemd_is_told_what_happens(new_gateway, tmp_path, upstream, backend_port):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        inbox.setblocking(False)
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
        gateway = new_gateway(settings(backend_port), environ=environ)
        told = []

        def has_been_told(word):
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.append(inbox.recv(4096).decode())
            return any(word in message for message in told)

        await eventually(lambda: has_been_told("READY=1"), "READY=1")
        await eventually(lambda: has_been_told("WATCHDOG=1"), "WATCHDOG=1")
        told.clear()
        gateway.signal(signal.SIGHUP)
        await eventually(lambda: has_been_told("RELOADING=1"), "RELOADING=1")
        await eventually(lambda: has_been_told("READY=1"), "READY=1 again")
        gateway.signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, 5) == 0
        assert has_been_told("STOPPING=1")


# --- pages of our own --------------------------------------------------------


async def test_health_and_readiness_answer(gateway, upstream):
    health = await ask(gateway.port, get(b"/health"))
    ready = await ask(gateway.port, get(b"/ready"))
    index = await ask(gateway.port, get(b"/"))

    assert [health.status, ready.status, index.status] == [200, 200, 200]
    assert json.loads(index.body)["service"]
    assert upstream.requests == []


async def test_metrics_are_prometheus_text_without_requests_in_their_labels(gateway, upstream):
    await ask(gateway.port, get(b"/v1/label-from-a-request?x=y", b"X-A: label-from-a-header"))

    metrics = await ask(gateway.port, get(b"/metrics"))

    assert metrics.status == 200
    assert b"# TYPE llmproxy_requests_total counter" in metrics.body
    assert b"label-from" not in metrics.body


async def test_a_health_check_takes_a_backend_out_and_back(new_gateway, upstream, backend_port):
    check = {"enabled": True, "path": "/health", "interval": "200ms", "timeout": "200ms"}
    check |= {"healthy_threshold": 2, "unhealthy_threshold": 2}
    ill = asyncio.Event()

    async def script(connection, request):
        bad = request.target == b"/health" and ill.is_set()
        connection.write(answer(status=b"500 No" if bad else b"200 OK"))

    upstream.on_request = script
    gateway = new_gateway(settings(backend_port, health_check=check))

    async def is_ready():
        return (await ask(gateway.port, get(b"/ready"))).status == 200

    async def is_not_ready():
        return not await is_ready()

    await eventually(is_ready, "ready")
    ill.set()
    await eventually(is_not_ready, "not ready")
    ill.clear()
    await eventually(is_ready, "ready again")
    assert {request.head.start for request in upstream.requests} == {b"GET /health HTTP/1.1"}
