"""Every kind of source: what it says anew takes effect without a restart, and no stream notices.

DNS and Kubernetes are found where the system says they are, so their gateway runs with files of its
own in the places of the system's, in a mount namespace.
"""

import asyncio
import base64
import json
import os
import shlex
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from shutil import which

import pytest
import trustme
from kit import wire
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.names import name_server, srv
from kit.outbound import OutboundServer
from kit.upstream import ScriptedUpstream, replies
from kit.wire import chunk, post, sse_head
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

LONG = 120.0
NAME_SERVER = "127.53.0.1"  # what is 127.0.0.1's port 53 on this machine is none of our business

MAY_MOUNT = (
    os.geteuid() == 0
    and which("unshare") is not None
    and subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/run"], check=False).returncode
    == 0
)


class World:
    """One kind of source. `says` makes it name exactly these servers; the rest is for the gateway."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.source: dict[str, object] = {}
        self.more: dict[str, object] = {}
        self.options: dict[str, object] = {}

    async def start(self) -> None: ...

    async def says(self, *servers: ScriptedUpstream) -> None: ...

    def mounts(self, *commands: str) -> None:
        """Let the gateway run behind these, which nobody else sees."""
        script = " && ".join([*commands, 'exec "$@"'])
        self.options["wrapper"] = ("unshare", "--mount", "sh", "-c", script, "sh")


class Answering(World):
    """One that is an HTTP server."""

    def answer(self, *servers: ScriptedUpstream) -> object:
        raise NotImplementedError

    def found_at(self, port: int) -> dict[str, object]:
        raise NotImplementedError

    async def start(self) -> None:
        self.server = await self.stack.enter_async_context(ScriptedUpstream(tls=self.tls()))
        self.source = self.found_at(self.server.port)

    def tls(self) -> ssl.SSLContext | None:
        return None

    async def says(self, *servers: ScriptedUpstream) -> None:
        self.server.on_request = replies(wire.answer(json.dumps(self.answer(*servers)).encode()))


def url(server: ScriptedUpstream) -> str:
    return f"http://{server.host}:{server.port}"


class HttpList(Answering):
    def found_at(self, port: int) -> dict[str, object]:
        return {"type": "http", "url": f"http://127.0.0.1:{port}/list"}

    def answer(self, *servers: ScriptedUpstream) -> object:
        return [url(server) for server in servers]


class Consul(Answering):
    def found_at(self, port: int) -> dict[str, object]:
        return {"type": "consul", "addr": f"127.0.0.1:{port}", "service": "vllm"}

    def answer(self, *servers: ScriptedUpstream) -> object:
        return [{"Service": {"Address": one.host, "Port": one.port}} for one in servers]


class Etcd(Answering):
    def found_at(self, port: int) -> dict[str, object]:
        return {"type": "etcd", "endpoints": [f"http://127.0.0.1:{port}"]}

    def answer(self, *servers: ScriptedUpstream) -> object:
        values = [base64.b64encode(url(server).encode()).decode() for server in servers]
        return {"header": {}, "kvs": [{"key": "a2V5", "value": value} for value in values]}


class Distant(HttpList):
    """A list behind an outbound proxy."""

    def found_at(self, port: int) -> dict[str, object]:
        return {"type": "http", "url": f"http://localhost:{port}/list", "proxy": self.proxy.url("socks5h")}

    async def start(self) -> None:
        self.proxy = await self.stack.enter_async_context(OutboundServer(user="gate", password="canary"))
        await super().start()


class Kubernetes(Answering):
    def tls(self) -> ssl.SSLContext:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.crt"))
        (self.folder / "token").write_text("sa-token")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    def found_at(self, port: int) -> dict[str, object]:
        account = "/run/secrets/kubernetes.io/serviceaccount"
        self.mounts(
            "mount -t tmpfs none /run",
            f"mkdir -p {account}",
            f"mount --bind {shlex.quote(str(self.folder))} {account}",
        )
        told = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
        self.options["environ"] = told
        return {"type": "kubernetes", "service": "vllm", "port": 0}

    async def says(self, *servers: ScriptedUpstream) -> None:
        self.source["port"] = servers[0].port
        await super().says(*servers)

    def answer(self, *servers: ScriptedUpstream) -> object:
        ready = {"ready": True}
        endpoints = [{"addresses": [one.host], "conditions": ready} for one in servers]
        ports = [{"name": "http", "port": servers[0].port}]
        return {"items": [{"addressType": "IPv4", "endpoints": endpoints, "ports": ports}]}


class DatabaseTable(World):
    async def start(self) -> None:
        path = self.folder / "services.db"
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self.stack.push_async_callback(self._engine.dispose)
        await self._run("CREATE TABLE services (name TEXT, url TEXT, weight INTEGER, status TEXT)")
        self.more = {"storage": {"databases": [{"name": "default", "driver": "sqlite", "path": str(path)}]}}
        self.source = {"type": "database"}

    async def says(self, *servers: ScriptedUpstream) -> None:
        await self._run(
            "DELETE FROM services",
            *(f"INSERT INTO services VALUES (NULL, '{url(one)}', 1, 'enabled')" for one in servers),
        )

    async def _run(self, *statements: str) -> None:
        async with self._engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))


class Services(World):
    """SRV records."""

    async def start(self) -> None:
        self._records = b""
        await self.stack.enter_async_context(
            name_server(lambda name: self._records, host=NAME_SERVER, port=53)
        )
        (self.folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
        self.mounts(f"mount --bind {shlex.quote(str(self.folder / 'resolv.conf'))} /etc/resolv.conf")
        self.source = {"type": "dns", "host": "_http._tcp.vllm.example."}

    async def says(self, *servers: ScriptedUpstream) -> None:
        self._records = srv(*((0, 1, server.port, "localhost") for server in servers))


class Addresses(World):
    """A name's addresses, as the system resolves it."""

    async def start(self) -> None:
        self._hosts = self.folder / "hosts"
        self._hosts.write_text("")
        self.mounts(f"mount --bind {shlex.quote(str(self._hosts))} /etc/hosts")
        self.source = {"type": "dns", "host": "vllm.example", "port": 0}

    async def says(self, *servers: ScriptedUpstream) -> None:
        self.source["port"] = servers[0].port
        self._hosts.write_text("".join(f"{server.host} vllm.example\n" for server in servers))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


needs_mounts = pytest.mark.skipif(not MAY_MOUNT, reason="needs root and mount namespaces")


@pytest.mark.parametrize(
    "kind",
    [
        HttpList,
        Distant,
        Consul,
        Etcd,
        DatabaseTable,
        pytest.param(Kubernetes, marks=needs_mounts),
        pytest.param(Services, marks=needs_mounts),
        pytest.param(Addresses, marks=needs_mounts),
    ],
)
async def test_what_a_source_says_takes_effect_and_streams_run_on(
    new_gateway, stack: AsyncExitStack, tmp_path: Path, kind: type[World]
) -> None:
    may_end = asyncio.Event()

    async def streams(connection, request) -> None:
        connection.write(sse_head() + chunk(b"data: 1\n\n"))
        await may_end.wait()
        connection.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    port = free_port()  # one port at two addresses, as pods have it
    old = await stack.enter_async_context(ScriptedUpstream(streams, port=port))
    new = await stack.enter_async_context(
        ScriptedUpstream(
            host="127.0.0.1" if kind is Services else "127.0.0.2", port=0 if kind is Services else port
        )
    )
    world = kind(stack, tmp_path)
    await world.start()
    await world.says(old)
    sources = [{**world.source, "interval": "200ms", "timeout": "30s"}]
    made = settings(discovery={"sources": sources}, **world.more)
    del made["backends"]
    gateway = await asyncio.to_thread(new_gateway, made, **world.options)  # it waits for the first look

    async with await RawClient.connect(gateway.port) as client:
        client.write(post())
        await old.wait_requests(1, LONG)
        await world.says(new)

        while not new.requests:  # who is early goes where the stream is
            before = len(old.requests)
            async with await RawClient.connect(gateway.port) as early:
                early.write(post())
                await eventually(
                    lambda before=before: len(old.requests) > before or bool(new.requests), "it arrives", LONG
                )
        answers = [await ask(gateway.port, post(), LONG) for _ in range(4)]
        may_end.set()
        streamed = await client.read_response(b"POST", LONG)

    assert "canary" not in gateway.output
    assert [answer.status for answer in answers] == [200] * 4
    assert (streamed.status, streamed.end) == (200, "complete")
    assert streamed.body == b"data: 1\n\ndata: [DONE]\n\n"


async def test_a_source_that_says_nonsense_is_asked_again(stack, new_gateway) -> None:
    """Neither the start nor the looks that follow end over a port that is none."""
    alive = await stack.enter_async_context(ScriptedUpstream())
    ports = [70000]

    async def consul(connection, request):
        said = [{"Service": {"Address": "127.0.0.1", "Port": port}} for port in ports]
        connection.write(wire.answer(json.dumps(said).encode()))

    agent = await stack.enter_async_context(ScriptedUpstream(consul))
    source = {"type": "consul", "service": "x", "addr": f"127.0.0.1:{agent.port}", "interval": "100ms"}
    made = settings(discovery={"sources": [source]})
    del made["backends"]
    gateway = await asyncio.to_thread(new_gateway, made)
    await agent.wait_requests(3, LONG)

    refused = await ask(gateway.port, post(), LONG)
    ports[:] = [alive.port]

    async def serves() -> bool:
        return (await ask(gateway.port, post(), LONG)).status == 200

    await eventually(serves, "what it says is followed", LONG)
    assert refused.status == 503
    assert "discovery failed" in gateway.log
