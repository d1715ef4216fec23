"""Several processes on one port: they share the work, a death costs nobody else, all end together."""

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest
from kit.client import Ended, RawClient, ask
from kit.eventually import eventually
from kit.gateway import Gateway, free_port, settings
from kit.receiver import Receiver
from kit.wire import answer, chunk, chunked, get, post, sse_head
from prometheus_client.parser import text_string_to_metric_families

STREAM = b'{"model":"m","stream":true}'


def crew(port, workers=2, **more):
    server = {"workers": workers, **more.pop("server", {})}
    return settings(port, server=server, **more)


def children(gateway):
    return [int(pid) for pid in Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()]


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def total(page, wanted, *labels):
    """The sum of a figure over all its labels but those given."""
    return sum(value for (name, having), value in page.items() if name == wanted and {*labels} <= {*having})


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


async def scrape(port):
    page = (await ask(port, get(b"/metrics"))).body.decode()
    families = text_string_to_metric_families(page)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


async def held_streams(stack, gateway, number):
    streams = [await stack.enter_async_context(await RawClient.connect(gateway.port)) for _ in range(number)]
    for stream in streams:
        await stream.send(post(body=STREAM))
    for stream in streams:
        await stream.read_until(b"begun")
    return streams


def holding(go_on):
    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    return held


# --- sharing -------------------------------------------------------------------


async def test_connections_are_spread_over_the_workers(new_gateway, upstream, loop_environ):
    gateway = new_gateway(crew(upstream.port), environ=loop_environ)
    pids = children(gateway)
    assert len(pids) == 2
    go_on = asyncio.Event()
    upstream.on_request = holding(go_on)

    async with AsyncExitStack() as stack:
        idle = list(map(open_files, pids))
        streams = await held_streams(stack, gateway, 80)
        files = list(map(open_files, pids))
        taken = [(now - before) / 2 for now, before in zip(files, idle, strict=True)]
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert sum(taken) == pytest.approx(80, abs=4)
    assert min(taken) > 80 / 2 - 22  # five standard deviations of a fair coin


async def test_any_worker_answers_for_all(new_gateway, upstream):
    limit = {"access": {"output": "stdout", "format": "json"}}
    gateway = new_gateway(crew(upstream.port, workers=3, logging=limit))
    for _ in range(60):
        assert (await ask(gateway.port, post())).status == 200

    pages = [await scrape(gateway.port) for _ in range(12)]

    counted = [total(page, "llmproxy_requests_total", ("backend", "backend-0")) for page in pages]
    assert set(counted) == {60}
    assert {page["llmproxy_workers", ()] for page in pages} == {3}
    assert all(page["llmproxy_config_generation", ()] == 1 for page in pages)
    assert pages[0]["process_resident_memory_bytes", ()] > 3 * 10e6


async def test_ids_of_requests_and_records_differ_between_workers(new_gateway, upstream):
    async with Receiver() as receiver:
        reporter = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/"}
        gateway = new_gateway(crew(upstream.port, usage={"enabled": True, "reporters": [reporter]}))
        ids = {(await ask(gateway.port, post())).get(b"x-request-id") for _ in range(100)}
        await receiver.wait_records(100)
        assert await asyncio.to_thread(gateway.stop) == 0

    assert len(ids) == 100
    assert {record["request_id"].encode() for record in receiver.records} == ids
    assert len(receiver.ids) == 100


async def test_access_lines_of_several_workers_do_not_mix(new_gateway, upstream):
    gateway = new_gateway(crew(upstream.port))

    async def client_of(number):
        async with await RawClient.connect(gateway.port) as client:
            for turn in range(50):
                assert (await client.ask(get(b"/v1/%b/%d/%d" % (b"x" * 150, number, turn)))).status == 200

    await asyncio.gather(*(client_of(number) for number in range(8)))
    assert await asyncio.to_thread(gateway.stop) == 0

    lines = [line for line in gateway.log_lines() if '"method"' in line]
    assert len(lines) == 400
    assert all(line.startswith("{") and line.endswith("}") for line in lines)


async def test_a_port_in_use_is_said_plainly(tmp_path):
    """Also where it is in use by another gateway that shares it among its workers."""
    first = Gateway(tmp_path / "first", crew(1))
    second = Gateway(tmp_path / "second", crew(1))
    second.port = first.port
    second.write(crew(1))
    first.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *second.command, cwd=second.folder, env=second.environ, stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
    finally:
        assert first.stop() == 0

    assert process.returncode == 1
    assert b"in use" in said
    assert b"Traceback" not in said


async def test_a_worker_that_cannot_start_ends_all_and_is_said_once(tmp_path):
    (tmp_path / "keys.yaml").write_text("keys: [{name: a}]")
    (tmp_path / "keys.yaml").chmod(0o600)
    auth = {"enabled": True, "pipeline": [{"type": "file", "path": str(tmp_path / "keys.yaml")}]}
    gateway = Gateway(tmp_path / "own", crew(1, workers=3, auth=auth)).start(wait=False)

    assert await asyncio.to_thread(gateway.died_early)

    assert gateway.process.returncode == 2
    assert gateway.output.count("write either key or sha256") == 1
    assert "Traceback" not in gateway.output


# --- reloading -----------------------------------------------------------------


async def test_a_reload_reaches_every_worker_and_fails_nobody(new_gateway, upstream, loop_environ):
    gateway = new_gateway(crew(upstream.port), environ=loop_environ)
    until = monotonic() + 2.5
    results = []

    async def client_of(number):
        while monotonic() < until:
            async with await RawClient.connect(gateway.port) as client:
                for _ in range(4):
                    results.append((await client.ask(post())).status)

    async def reloads():
        for _ in range(5):
            await asyncio.sleep(0.4)
            gateway.signal(signal.SIGHUP)

    await asyncio.gather(reloads(), *(client_of(number) for number in range(8)))

    async def all_are_new():
        return (await scrape(gateway.port))["llmproxy_config_generation", ()] == 6

    await eventually(all_are_new, "the last generation in every worker")
    assert set(results) == {200}
    assert len(children(gateway)) == 2


async def test_streams_of_all_workers_outlive_a_reload_and_are_counted_together(new_gateway, upstream):
    gateway = new_gateway(crew(upstream.port))
    go_on = asyncio.Event()
    upstream.on_request = holding(go_on)
    async with AsyncExitStack() as stack:
        streams = await held_streams(stack, gateway, 20)
        gateway.signal(signal.SIGHUP)

        async def all_are_new():
            return (await scrape(gateway.port))["llmproxy_config_generation", ()] == 2

        await eventually(all_are_new, "the new generation in every worker")
        running = [total(await scrape(gateway.port), "llmproxy_upstream_in_flight") for _ in range(4)]
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert running == [20] * 4


async def test_a_bad_file_is_said_once_and_changes_nothing(new_gateway, upstream):
    gateway = new_gateway(crew(upstream.port, workers=3))
    gateway.write(crew(upstream.port, workers=3, surprise=1))
    gateway.signal(signal.SIGHUP)

    await eventually(lambda: "surprise" in gateway.output, "the reason")
    assert (await scrape(gateway.port))["llmproxy_config_generation", ()] == 1
    assert gateway.output.count("the new configuration was refused") == 1


# --- dying ---------------------------------------------------------------------


async def test_a_worker_that_dies_is_replaced_and_the_others_go_on(new_gateway, upstream, loop_environ):
    gateway = new_gateway(crew(upstream.port), environ=loop_environ)
    go_on = asyncio.Event()
    upstream.on_request = holding(go_on)
    async with AsyncExitStack() as stack:
        streams = await held_streams(stack, gateway, 20)
        before = children(gateway)

        os.kill(before[0], signal.SIGKILL)

        await eventually(lambda: len(set(children(gateway)) - set(before)) == 1, "the successor")
        go_on.set()
        ends = []
        for stream in streams:
            try:
                await stream.read_until(b"0\r\n\r\n")
                ends.append("whole")
            except Ended:
                ends.append("cut")
        assert {"whole", "cut"} == set(ends)

    async def has_two():
        with suppress(Ended, OSError):
            return (await scrape(gateway.port))["llmproxy_workers", ()] == 2
        return False

    await eventually(has_two, "two workers")
    assert before[1] in children(gateway)
    assert gateway.stop() == 0


async def test_while_a_worker_is_away_connections_go_to_the_others(new_gateway, upstream):
    gateway = new_gateway(crew(upstream.port))
    stays, dies = children(gateway)
    for _ in range(4):  # so often that its successor is made to wait
        os.kill(dies, signal.SIGKILL)
        await eventually(lambda dies=dies: dies not in children(gateway), "the death")
        if len(children(gateway)) < 2:
            answers = [(await ask(gateway.port, get(), 5)).status for _ in range(10)]
            assert set(answers) == {200}
        await eventually(lambda: len(children(gateway)) == 2, "the successor", 10)
        (dies,) = set(children(gateway)) - {stays}
    assert gateway.output.count("a worker died and is replaced") == 4


async def test_workers_end_with_their_parent(tmp_path, upstream, loop_environ):
    gateway = Gateway(tmp_path / "own", crew(upstream.port), environ=loop_environ).start()
    pids = children(gateway)

    gateway.kill()

    await eventually(lambda: not any(map(is_alive, pids)), "the workers gone")
    assert not gateway.accepts()


async def test_workers_end_with_a_parent_that_left_their_words_unread(tmp_path, upstream, loop_environ):
    watched = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "600000"}
    gateway = Gateway(tmp_path / "own", crew(upstream.port), environ=loop_environ | watched).start()
    pids = children(gateway)
    gateway.signal(signal.SIGSTOP)
    await asyncio.sleep(1)  # in which each tells its parent several times that it lives

    gateway.kill()

    await eventually(lambda: not any(map(is_alive, pids)), "the workers gone")


async def test_a_worker_that_hangs_is_killed_and_replaced(new_gateway, upstream, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(path)
        inbox.setblocking(False)
        gateway = new_gateway(crew(upstream.port), environ={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "900000"})
        hangs, works = children(gateway)
        os.kill(hangs, signal.SIGSTOP)

        await eventually(lambda: not is_alive(hangs), "the death of the one that hangs")
        await eventually(lambda: len(children(gateway)) == 2, "its successor")
        told = []
        with suppress(BlockingIOError):
            while True:
                told.append(inbox.recv(4096))

    assert works in children(gateway)
    assert told.count(b"READY=1") == 1
    assert told.count(b"WATCHDOG=1") >= 3
    assert "a worker hangs and is killed" in gateway.output


# --- ending --------------------------------------------------------------------


async def test_a_drain_lets_streams_of_all_workers_end(new_gateway, upstream, loop_environ):
    gateway = new_gateway(crew(upstream.port, server={"shutdown_timeout": "8s"}), environ=loop_environ)
    go_on = asyncio.Event()
    upstream.on_request = holding(go_on)
    async with AsyncExitStack() as stack:
        streams = await held_streams(stack, gateway, 20)
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "new connections refused")
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_signal_to_every_process_is_one_signal(new_gateway, upstream):
    """systemd sends SIGTERM to the whole service, a terminal SIGINT to all in the foreground."""
    gateway = new_gateway(crew(upstream.port, server={"shutdown_timeout": "8s"}))
    go_on = asyncio.Event()
    upstream.on_request = holding(go_on)
    async with AsyncExitStack() as stack:
        streams = await held_streams(stack, gateway, 10)
        for pid in (*children(gateway), gateway.pid):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM) if pid != gateway.pid else None
        await eventually(lambda: not gateway.accepts(), "new connections refused")
        go_on.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_second_signal_is_immediate(new_gateway, upstream, loop_environ):
    gateway = new_gateway(crew(upstream.port, server={"shutdown_timeout": "60s"}), environ=loop_environ)
    upstream.on_request = holding(asyncio.Event())
    async with AsyncExitStack() as stack:
        await held_streams(stack, gateway, 10)
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "the drain")
        began = monotonic()

        gateway.signal(signal.SIGTERM)

        assert await asyncio.to_thread(gateway.wait) == 0
        assert monotonic() - began < 2.5


async def test_nothing_is_left_behind(tmp_path, upstream):
    run = tmp_path / "run"
    run.mkdir()
    gateway = Gateway(tmp_path / "own", crew(upstream.port), environ={"RUNTIME_DIRECTORY": str(run)})
    gateway.start()
    pids = children(gateway)
    assert len(list(run.iterdir())) == 1
    assert all(path.stat().st_mode & 0o077 == 0 for path in run.iterdir())

    assert await asyncio.to_thread(gateway.stop) == 0

    assert list(run.iterdir()) == []
    assert not any(map(is_alive, pids))


# --- where a port cannot be shared -----------------------------------------------


async def test_workers_share_a_unix_socket_and_a_port_for_metrics(tmp_path, upstream):
    path, port = tmp_path / "own" / "s", free_port()
    configuration = crew(upstream.port, metrics={"listen": f"127.0.0.1:{port}"})
    gateway = Gateway(tmp_path / "own", configuration)
    gateway.command += ["--listen", f"unix:{path}"]
    gateway.start(wait=False)
    try:
        await eventually(lambda: "listens on unix:" in gateway.output, "the ready line")
        for _ in range(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(get(b"/v1/x", b"Connection: close"))
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

        assert total(await scrape(port), "llmproxy_requests_total", ("backend", "backend-0")) == 20
        assert await asyncio.to_thread(gateway.stop) == 0
        assert not path.exists()
    finally:
        gateway.kill()


async def test_a_backend_is_never_busier_than_it_may_be(new_gateway, upstream):
    gateway = new_gateway(
        crew(upstream.port, backends=[{"url": f"http://127.0.0.1:{upstream.port}", "max_in_flight": 4}])
    )
    running, most = 0, 0

    async def slow(connection, request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        connection.write(answer())

    upstream.on_request = slow
    answers = await asyncio.gather(*(ask(gateway.port, post()) for _ in range(60)))

    assert {response.status for response in answers} <= {200, 503}
    assert 2 <= most <= 4


async def test_administration_has_an_address_of_its_own(new_gateway, upstream):
    """Any worker answers, and all of them know the keys at once."""
    port = free_port()
    admin = {"token": "token-0123456789abcdef", "listen": f"127.0.0.1:{port}"}
    auth = {"enabled": True, "pipeline": [{"type": "builtin"}]}
    gateway = new_gateway(crew(upstream.port, admin=admin, auth=auth))
    token = b"X-Admin-Token: token-0123456789abcdef"

    content = b'{"key":"sk-made-by-admin-0123456789","name":"a"}'
    made = await ask(port, post(b"/admin/keys/create", content, token))
    key = b"Authorization: Bearer sk-made-by-admin-0123456789"
    served = [(await ask(gateway.port, post(b"/v1/x", b"{}", key))).status for _ in range(12)]
    main = await ask(gateway.port, post(b"/admin/keys/list", b"{}", token))
    elsewhere = await ask(port, get(b"/v1/models", key))

    assert made.status == 200, made.body
    assert set(served) == {200}
    assert (main.status, elsewhere.status) == (401, 404)  # nothing there knows the token
