"""A process's life in either event loop: how it listens, what it reports, how it ends."""

import asyncio
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest
import trustme
from kit.client import Ended, RawClient, ask
from kit.eventually import eventually
from kit.gateway import Gateway, free_port, settings
from kit.upstream import replies
from kit.wire import answer, chunk, chunked, get, post, sse_head

STREAM = b'{"model":"m","stream":true}'


async def ten_pieces(connection, request):
    connection.write(sse_head())
    for number in range(10):
        connection.write(chunk(b"data: %d\n\n" % number))
        await asyncio.sleep(0.01)
    connection.write(chunked())


async def endless(connection, request):
    connection.write(sse_head())
    connection.is_endless = True
    while connection.ending is None and not connection.transport.is_closing():
        connection.write(chunk(b"data: 1\n\n"))
        await asyncio.sleep(0.02)


# --- both loops ----------------------------------------------------------------


async def test_the_loop_is_the_one_that_was_asked_for(new_gateway, upstream, loop_environ):
    gateway = new_gateway(settings(upstream.port), environ=loop_environ)

    has_uvloop = "uvloop" in Path(f"/proc/{gateway.pid}/maps").read_text()  # noqa: ASYNC240

    assert has_uvloop == (loop_environ["LLMPROXY_LOOP"] == "uvloop")


def test_a_loop_that_does_not_exist_is_refused(tmp_path):
    gateway = Gateway(tmp_path / "own", settings(1), environ={"LLMPROXY_LOOP": "trio"})
    gateway.start(wait=False)

    assert gateway.died_early()
    assert "LLMPROXY_LOOP must be uvloop or asyncio" in gateway.output
    assert "Traceback" not in gateway.output


async def test_requests_streams_and_departures(new_gateway, upstream, loop_environ):
    gateway = new_gateway(settings(upstream.port), environ=loop_environ)
    async with await RawClient.connect(gateway.port) as client:
        assert (await client.ask(post(body=b"x" * 300_000))).status == 200
        upstream.on_request = ten_pieces
        response = await client.ask(post(body=STREAM))
        assert response.is_complete
        assert response.chunks == [b"data: %d\n\n" % number for number in range(10)]

    upstream.on_request = endless
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=STREAM))
        await client.read_until(b"data")
        (streaming,) = (one for one in upstream.connections if hasattr(one, "is_endless"))
    assert await eventually(lambda: streaming.ending is not None, "the upstream freed") < 1.0


async def test_a_drain_lets_streams_end(new_gateway, upstream, loop_environ):
    gateway = new_gateway(settings(upstream.port), environ=loop_environ)
    go_on = asyncio.Event()

    async def held(connection, request):
        connection.write(sse_head() + chunk(b"begun"))
        await go_on.wait()
        connection.write(chunked(b"end"))

    upstream.on_request = held
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=STREAM))
        await client.read_until(b"begun")
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "new connections refused")
        go_on.set()
        assert (await client.read_until(b"0\r\n\r\n")).endswith(b"end\r\n0\r\n\r\n")

    assert await asyncio.to_thread(gateway.wait) == 0


async def test_it_recovers_when_no_files_are_left(new_gateway, upstream, loop_environ):
    gateway = new_gateway(settings(upstream.port), environ=loop_environ)
    assert (await ask(gateway.port, get())).status == 200
    allowed = gateway.open_files + 30
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (allowed, allowed))
    upstream.on_request = replies(b"", "stall")

    async with AsyncExitStack() as stack:
        for _ in range(100):
            with suppress(OSError, TimeoutError):
                client = await stack.enter_async_context(await RawClient.connect(gateway.port))
                client.write(post())
        await eventually(lambda: gateway.open_files >= allowed - 2, "all files taken")

    upstream.on_request = replies(answer())

    async def serves():
        with suppress(Ended, OSError):
            return (await ask(gateway.port, get())).status == 200
        return False

    await eventually(serves, "served again", 15)
    assert len(gateway.output) < 300_000
    assert gateway.stop() == 0


# --- addresses -----------------------------------------------------------------


async def ask_unix(path, request):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def test_a_unix_socket_serves_and_goes_with_the_process(tmp_path, upstream, loop_environ):
    path = tmp_path / "own" / "s"
    gateway = Gateway(tmp_path / "own", settings(upstream.port), environ=loop_environ)
    gateway.command += ["--listen", f"unix:{path}"]
    gateway.start(wait=False)
    try:
        await eventually(lambda: f"listens on unix:{path}" in gateway.output, "the ready line")

        head = await ask_unix(path, get(b"/v1/x", b"Connection: close"))

        assert head.startswith(b"HTTP/1.1 200")
        await eventually(lambda: '"ip":"local"' in gateway.output, "the access line")
        assert gateway.stop() == 0
        assert not path.exists()
    finally:
        gateway.kill()


async def test_metrics_can_have_an_address_of_their_own(new_gateway, upstream):
    port = free_port()
    gateway = new_gateway(
        settings(upstream.port, metrics={"listen": f"127.0.0.1:{port}", "path": "/figures"})
    )

    own = await ask(port, get(b"/figures"))
    elsewhere = await ask(port, get(b"/v1/x"))
    main = await ask(gateway.port, get(b"/figures"))

    assert b"llmproxy_requests_total" in own.body
    assert elsewhere.status == main.status == 404
    assert upstream.requests == []
    assert gateway.stop() == 0


async def test_a_metrics_port_in_use_is_said_plainly(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = Gateway(tmp_path / "own", settings(1, metrics={"listen": address})).start(wait=False)

        assert gateway.died_early()

    assert gateway.process.returncode == 1
    assert f"cannot listen on {address}: Address already in use" in gateway.output
    assert "Traceback" not in gateway.output


# --- client certificates ---------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority, tmp_path):
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {
        "cert_file": str(tmp_path / "cert.pem"),
        "key_file": str(tmp_path / "key.pem"),
        "client_ca_file": str(tmp_path / "ca.pem"),
    }


def client_context(authority, shown=None):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown is not None:
        shown.issue_cert("somebody@example.com").configure_cert(context)
    return context


async def is_served(port, context):
    with suppress(ssl.SSLError, Ended, ConnectionError):
        async with await RawClient.connect(port, tls=context) as client:
            return (await client.ask(get())).status == 200
    return False


async def test_a_client_must_show_a_certificate_where_it_is_required(
    new_gateway, upstream, authority, tls, loop_environ
):
    server = {"tls": {**tls, "client_auth": "require"}}
    gateway = new_gateway(settings(upstream.port, server=server), environ=loop_environ)

    assert await is_served(gateway.port, client_context(authority, authority))
    assert not await is_served(gateway.port, client_context(authority))
    assert not await is_served(gateway.port, client_context(authority, trustme.CA()))
    assert len(upstream.requests) == 1
    assert "Traceback" not in gateway.output


async def test_a_client_may_show_a_certificate_where_it_is_requested(new_gateway, upstream, authority, tls):
    server = {"tls": {**tls, "client_auth": "request"}}
    gateway = new_gateway(settings(upstream.port, server=server))

    assert await is_served(gateway.port, client_context(authority, authority))
    assert await is_served(gateway.port, client_context(authority))
    assert not await is_served(gateway.port, client_context(authority, trustme.CA()))


@pytest.mark.parametrize("name", ["cert_file", "key_file", "client_ca_file"])
def test_a_certificate_that_cannot_be_read_is_said_plainly(tmp_path, tls, name):
    server = {"tls": {**tls, "client_auth": "require", name: str(tmp_path / "missing.pem")}}
    gateway = Gateway(tmp_path / "own", settings(1, server=server)).start(wait=False)

    assert gateway.died_early()
    assert gateway.process.returncode == 1
    assert "missing.pem" in gateway.output
    assert "Traceback" not in gateway.output


# --- systemd ---------------------------------------------------------------------

# Becomes the gateway with the socket as descriptor 3, as systemd starts it.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="llmproxy.socket")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Activated(Gateway):
    """A gateway whose socket the test holds."""

    def __init__(self, folder, configuration, sock, **options):
        super().__init__(folder, configuration, **options)
        self.sock = sock
        self.listened_on = self.port  # what the configuration says must not count
        self.port = sock.getsockname()[1]
        self.command = [sys.executable, "-c", ACTIVATE, str(sock.fileno()), *self.command[1:]]

    def start(self, *, wait=True):
        self._started_at = len(self._read(self._out))
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=[self.sock.fileno()],
            )
        if wait:
            self._wait_ready()
        return self


async def test_no_connection_is_refused_over_a_restart_under_socket_activation(
    tmp_path, upstream, loop_environ
):
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        gateway = Activated(tmp_path / "own", settings(upstream.port), sock, environ=loop_environ).start()
        results = []
        restarted = asyncio.Event()

        async def client_of(number):
            while not restarted.is_set():
                try:
                    results.append((await ask(gateway.port, get(), 20)).status)
                except (ConnectionRefusedError, Ended) as error:
                    results.append(error)

        async def restarts():
            for _ in range(2):
                await asyncio.sleep(0.3)
                assert await asyncio.to_thread(gateway.stop) == 0
                await asyncio.to_thread(gateway.start)
            restarted.set()

        try:
            await asyncio.gather(restarts(), *(client_of(number) for number in range(6)))
            with socket.socket() as other:
                assert other.connect_ex(("127.0.0.1", gateway.listened_on)) != 0
        finally:
            gateway.kill()
    assert {str(result) for result in results} == {"200"}
    assert len(results) > 20


@pytest.fixture
def manager(tmp_path):
    """What systemd hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(tmp_path / "notify"))
        inbox.setblocking(False)
        yield Manager(inbox, str(tmp_path / "notify"))


class Manager:
    def __init__(self, inbox, path):
        self._inbox = inbox
        self.path = path

    def heard(self):
        """Everything since the last call."""
        told = []
        with suppress(BlockingIOError):
            while True:
                told.append(self._inbox.recv(4096).decode())
        return told

    async def wait_for(self, word):
        told = []

        def has_come():
            told.extend(self.heard())
            return any(message.startswith(word) for message in told)

        await eventually(has_come, word)
        return told


async def test_the_manager_hears_of_start_reload_and_end_in_order(
    new_gateway, upstream, manager, loop_environ
):
    gateway = new_gateway(settings(upstream.port), environ={"NOTIFY_SOCKET": manager.path, **loop_environ})
    gateway.signal(signal.SIGHUP)
    told = await manager.wait_for("RELOADING=1")
    told += await manager.wait_for("READY=1") if told[-1].startswith("RELOADING") else []
    assert gateway.stop() == 0
    told += manager.heard()

    assert [message.split("\n")[0] for message in told] == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert any("MONOTONIC_USEC=" in message for message in told)


async def test_the_watchdog_is_fed_by_the_loop_alone(new_gateway, upstream, manager, loop_environ):
    environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "600000", **loop_environ}
    gateway = new_gateway(settings(upstream.port), environ=environ)
    await manager.wait_for("WATCHDOG=1")

    began = monotonic()
    for _ in range(5):
        await manager.wait_for("WATCHDOG=1")
    assert monotonic() - began < 5 * 0.6  # always within the period

    gateway.signal(signal.SIGSTOP)  # as if the loop hung
    await asyncio.sleep(0.3)
    manager.heard()
    await asyncio.sleep(1.0)
    assert manager.heard() == []
    gateway.signal(signal.SIGCONT)
    await manager.wait_for("WATCHDOG=1")


async def test_a_loop_that_was_held_up_shows_in_the_metrics(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    gateway.signal(signal.SIGSTOP)
    await asyncio.sleep(1.2)
    gateway.signal(signal.SIGCONT)

    async def shows():
        page = (await ask(gateway.port, get(b"/metrics"))).body
        (line,) = [line for line in page.splitlines() if line.startswith(b"llmproxy_event_loop_lag_seconds ")]
        return float(line.split()[1]) > 0.5

    await eventually(shows, "the lag")


# --- the end ---------------------------------------------------------------------


@pytest.mark.parametrize("stuck", ["stdout", "stderr"])
async def test_output_that_nobody_reads_stops_neither_service_nor_end(
    tmp_path, upstream, loop_environ, stuck
):
    gateway = Gateway(tmp_path / "own", settings(upstream.port), environ=loop_environ)
    reader, writer = os.pipe()
    outputs = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stuck: writer}
    process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
        gateway.command, cwd=gateway.folder, env=gateway.environ, **outputs
    )
    os.close(writer)
    try:
        await eventually(gateway.accepts, "the start")
        async with await RawClient.connect(gateway.port) as client:
            for _ in range(400):  # access lines and log lines, more than a pipe holds
                assert (await client.ask(get())).status == 200
        for _ in range(400):
            async with await RawClient.connect(gateway.port) as client:
                await client.ask(b"GET / HTTP/1.1\r\nHost: a b\r\nX-Fill: %b\r\n\r\n" % (b"x" * 100))
        assert (await ask(gateway.port, get())).status == 200

        began = monotonic()
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 15)

        assert monotonic() - began < 10
        assert process.returncode in (0, 1)
    finally:
        process.kill()
        process.wait()
        os.close(reader)


async def test_a_second_signal_ends_it_at_once_though_nobody_takes_the_records(
    new_gateway, upstream, loop_environ
):
    url = f"http://127.0.0.1:{free_port()}/"
    usage = {"enabled": True, "reporters": [{"name": "hook", "type": "webhook", "url": url, "timeout": "1s"}]}
    configuration = settings(upstream.port, usage=usage, server={"shutdown_timeout": "60s"})
    gateway = new_gateway(configuration, environ=loop_environ)
    upstream.on_request = endless
    async with await RawClient.connect(gateway.port) as client:
        await client.send(post(body=STREAM))
        await client.read_until(b"data")
        gateway.signal(signal.SIGTERM)
        await eventually(lambda: not gateway.accepts(), "the drain")
        began = monotonic()

        gateway.signal(signal.SIGTERM)

        assert await asyncio.to_thread(gateway.wait) == 0
        assert monotonic() - began < 2.5


async def test_a_signal_during_the_start_ends_it(tmp_path, upstream, loop_environ):
    gateway = Gateway(tmp_path / "own", settings(upstream.port), environ=loop_environ)
    gateway.start(wait=False)
    await eventually(gateway.accepts, "the port bound")  # before all is built

    assert await asyncio.to_thread(gateway.stop) == 0
    assert "Traceback" not in gateway.output
