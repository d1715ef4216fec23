"""Connections through proxies that listen on real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
from kit.gateway import free_port
from kit.outbound import MICROSOCKS, TINYPROXY, OutboundServer, RealProxy
from kit.upstream import Connection, ScriptedUpstream, replies
from kit.wire import answer

from proxy.upstream.ask import NoAnswer, converse
from proxy.upstream.connections import Connections
from proxy.upstream.fetch import Unwelcome
from proxy.upstream.fetch_proxied import ProxiedFetcher
from proxy.upstream.tunnel import ProxyFailed, proxy_tls
from proxy.upstream.watch import Watch
from proxy.wire.tunnel import outbound_proxy

SCHEMES = ("http", "https", "socks5", "socks5h")
REQUEST = b"POST /v1/x HTTP/1.1\r\nHost: up\r\nContent-Length: 2\r\n\r\n"
LONG = b"x" * 300_000

Connect = Callable[..., Connections]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
async def connect(authority: trustme.CA, ca_file: str) -> AsyncIterator[Connect]:
    """Connections to localhost through the proxy of that URL; all are closed after the test."""
    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    made: list[Connections] = []

    def make(port: int, url: str, *, tls: bool = False, host: str = "localhost") -> Connections:
        context = None
        if tls:
            context = ssl.create_default_context()
            authority.configure_trust(context)
        proxy = outbound_proxy(url, ca_file)
        made.append(Connections(host, port, watch=watch, loop=loop, ssl=context, proxy=proxy))
        return made[-1]

    yield make
    for connections in made:
        connections.close()
        assert connections.open == 0
    watch.close()


async def ask(connections: Connections) -> bytes:
    return (await converse(connections, REQUEST, b"hi", method="POST", within=20.0)).body


async def refusal(connections: Connections, within: float = 20.0) -> ProxyFailed:
    with pytest.raises(ProxyFailed) as caught:
        await connections.connect(within)
    assert connections.open == 0
    return caught.value


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("user", ["", "gate"])
async def test_a_server_is_reached_through_every_kind_of_proxy(
    connect: Connect, authority: trustme.CA, scheme: str, tls: bool, user: str
) -> None:
    proxy_context = server_tls(authority, "127.0.0.1") if scheme == "https" else None
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            ScriptedUpstream(replies(answer(LONG)), tls=server_tls(authority, "localhost") if tls else None)
        )
        proxy = await stack.enter_async_context(
            OutboundServer(user=user, password="s3cret" if user else "", tls=proxy_context, dribbles=True)
        )

        assert await ask(connect(upstream.port, proxy.url(scheme), tls=tls)) == LONG

    assert upstream.requests[0].raw == REQUEST + b"hi"
    name = "127.0.0.1" if scheme == "socks5" else "localhost"
    assert proxy.asked[-1] == f"{name}:{upstream.port}"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_connection_through_a_proxy_carries_one_exchange_after_another(
    connect: Connect, authority: trustme.CA, scheme: str
) -> None:
    context = server_tls(authority, "127.0.0.1") if scheme == "https" else None
    async with ScriptedUpstream() as upstream, OutboundServer(tls=context) as proxy:
        connections = connect(upstream.port, proxy.url(scheme))
        first = await connections.connect(20.0)
        connections.give_back(first, was_stream=False)

        assert await connections.proven() is first
        first.abandon()

    assert len(proxy.asked) >= 1


async def test_only_socks5h_leaves_names_to_the_proxy(connect: Connect) -> None:
    async with OutboundServer() as proxy:
        for scheme in ("http", "socks5h"):
            error = await refusal(connect(80, proxy.url(scheme), host="nobody.invalid"))
            assert error.phase == "asking its proxy for a way"
        assert proxy.asked == ["nobody.invalid:80"] * 2

        error = await refusal(connect(80, proxy.url("socks5"), host="nobody.invalid"))

    assert error.phase == "looking up its name"
    assert len(proxy.asked) == 2


async def test_the_certificate_is_the_servers_and_not_the_proxys(
    connect: Connect, authority: trustme.CA
) -> None:
    elsewhere = server_tls(authority, "elsewhere.example")
    async with ScriptedUpstream(tls=elsewhere) as upstream, OutboundServer() as proxy:
        error = await refusal(connect(upstream.port, proxy.url("socks5h"), tls=True))

    assert error.phase == "TLS through its proxy"
    assert "certificate" in str(error)


async def test_a_proxys_own_certificate_is_checked_before_it_gets_a_password(
    connect: Connect, authority: trustme.CA
) -> None:
    context = server_tls(authority, "elsewhere.example")
    async with OutboundServer(user="gate", password="canary", tls=context) as proxy:
        error = await refusal(connect(80, proxy.url("https")))

    assert error.phase == "TLS with its proxy"
    assert proxy.heads == []


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_wrong_password_is_said_and_not_shown(connect: Connect, scheme: str) -> None:
    async with OutboundServer(user="gate", password="right") as proxy:
        error = await refusal(connect(80, proxy.url(scheme, password="canary")))

    assert error.phase == "asking its proxy for a way"
    assert str(error).endswith(("it answered 407", "it refused user and password"))
    assert "canary" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_proxy_that_is_not_there_is_said(connect: Connect, scheme: str) -> None:
    error = await refusal(connect(80, f"{scheme}://gate:canary@127.0.0.1:{free_port()}"))

    assert error.phase == "connecting to its proxy"
    assert "canary" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_a_server_that_the_proxy_cannot_reach_is_said(connect: Connect, scheme: str) -> None:
    async with OutboundServer() as proxy:
        error = await refusal(connect(free_port(), proxy.url(scheme)))

    assert error.phase == "asking its proxy for a way"
    assert str(error).endswith(("it answered 503", "connection refused"))


def says(*pieces: bytes, then: str) -> Callable[[Connection], object]:
    """A proxy that says this when it was spoken to, whatever was said, and then stalls or ends."""

    async def script(connection: Connection) -> None:
        for piece in pieces:
            await connection.more()
            connection.write(piece)
        if then == "fin":
            connection.close()
        elif then == "rst":
            connection.reset()
        else:
            await connection.stall()

    return script


OK = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("then", ["fin", "rst"])
@pytest.mark.parametrize("cut", range(len(OK)))
async def test_a_proxy_that_ends_inside_its_answer_is_no_way(connect: Connect, cut: int, then: str) -> None:
    async with ScriptedUpstream(on_connection=says(OK[:cut], then=then)) as proxy:
        error = await refusal(connect(80, f"http://127.0.0.1:{proxy.port}"))

    assert error.phase == "asking its proxy for a way"


@pytest.mark.parametrize(
    ("scheme", "pieces", "why"),
    [
        ("http", [b"HTTP/1.1 200 OK\r\nX: " + LONG], "its answer is too long"),
        ("http", [LONG], "its answer is too long"),
        ("http", [OK + b"more"], "more came than its answer"),
        ("socks5h", [b"\x05\x00more"], "its answer is not SOCKS 5"),
        ("socks5h", [b"\x05\x00", b"\x05\x00\x00\x01" + b"\0" * 6 + b"more"], "more came than its answer"),
        ("http", [b"\x05\x00" * 9000], "its answer is too long"),
    ],
)
async def test_a_proxy_that_says_too_much_is_no_way(
    connect: Connect, scheme: str, pieces: list[bytes], why: str
) -> None:
    async with ScriptedUpstream(on_connection=says(*pieces, then="stall")) as proxy:
        error = await refusal(connect(80, f"{scheme}://127.0.0.1:{proxy.port}"))
        assert str(error).endswith(why)
        await proxy.connections[0].wait_end()


@pytest.mark.parametrize(
    ("scheme", "pieces", "phase"),
    [
        ("http", [], "asking its proxy for a way"),
        ("http", [b"HTTP/1.1 200 OK\r\n"], "asking its proxy for a way"),
        ("socks5h", [b"\x05\x00"], "asking its proxy for a way"),
        ("https", [], "TLS with its proxy"),
        ("http", [OK], "TLS through its proxy"),
    ],
)
async def test_the_connect_time_out_covers_every_phase(
    connect: Connect, scheme: str, pieces: list[bytes], phase: str
) -> None:
    async with ScriptedUpstream(on_connection=says(*pieces, then="stall")) as proxy:
        connections = connect(443, f"{scheme}://127.0.0.1:{proxy.port}", tls=True)
        error = await refusal(connections, within=0.3)
        assert str(error) == f"{phase}: no answer in time"
        await proxy.connections[0].wait_end()


async def test_a_caller_that_gives_up_leaves_no_connection(connect: Connect) -> None:
    async with ScriptedUpstream(on_connection=says(then="stall")) as proxy:
        task = asyncio.ensure_future(connect(80, f"http://127.0.0.1:{proxy.port}").connect(20.0))
        await proxy.wait_connections(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await proxy.connections[0].wait_end()


async def test_an_answer_that_is_cut_behind_a_proxy_is_cut(connect: Connect) -> None:
    half = replies(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", then="fin")
    async with ScriptedUpstream(half) as upstream, OutboundServer() as proxy:
        with pytest.raises(NoAnswer, match="upstream_cut"):
            await ask(connect(upstream.port, proxy.url("http")))


def test_a_file_of_authorities_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        proxy_tls(outbound_proxy("https://p", str(tmp_path / "none.pem")))


async def test_a_form_goes_through_the_proxy(ca_file: str) -> None:
    async with ScriptedUpstream(replies(answer(b'{"a": 1}'))) as upstream, OutboundServer() as server:
        proxy = outbound_proxy(server.url("socks5h"))
        url = f"http://localhost:{upstream.port}/token?x=1"

        form = {"a": "b c", "d": "é&"}
        assert await ProxiedFetcher(proxy).json(url, within=20.0, method="POST", form=form) == {"a": 1}

    (request,) = upstream.requests
    assert request.raw.startswith(f"POST /token?x=1 HTTP/1.1\r\nHost: localhost:{upstream.port}\r\n".encode())
    assert request.body == b"a=b+c&d=%C3%A9%26"
    assert upstream.unclean == []
    assert server.asked == [f"localhost:{upstream.port}"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [(answer(b'{"error": "invalid_grant"}', status=b"400 No"), Unwelcome), (answer(b"nothing"), NoAnswer)],
)
async def test_a_form_that_is_refused_says_so(reply: bytes, error: type[Exception]) -> None:
    async with ScriptedUpstream(replies(reply)) as upstream, OutboundServer() as server:
        with pytest.raises(error):
            fetcher = ProxiedFetcher(outbound_proxy(server.url("http")))
            await fetcher.json(f"http://localhost:{upstream.port}", within=20.0, method="POST", form={})


# -- real ones ----------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("tinyproxy", marks=pytest.mark.skipif(TINYPROXY is None, reason="no tinyproxy")),
        pytest.param("microsocks", marks=pytest.mark.skipif(MICROSOCKS is None, reason="no microsocks")),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_a_server_is_reached_through_real_proxies(
    connect: Connect, authority: trustme.CA, kind: str, tls: bool
) -> None:
    real = RealProxy()
    try:
        url = await asyncio.to_thread(real.begin_tinyproxy if kind == "tinyproxy" else real.begin_microsocks)
        context = server_tls(authority, "localhost") if tls else None
        async with ScriptedUpstream(replies(answer(LONG)), tls=context) as upstream:
            assert await ask(connect(upstream.port, url, tls=tls)) == LONG
            assert upstream.requests[0].raw == REQUEST + b"hi"

        unknown = await refusal(connect(upstream.port, url.replace("canary", "wrong")))
        gone = await refusal(connect(upstream.port, url))
    finally:
        real.remove()

    assert {unknown.phase, gone.phase} == {"asking its proxy for a way"}
    assert "it " in str(unknown) and "canary" not in str(unknown)
