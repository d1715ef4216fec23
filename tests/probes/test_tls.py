"""The same promises where either side speaks TLS."""

import asyncio
import contextlib
import ssl
from time import monotonic

import pytest
import trustme
from kit.client import Ended, RawClient, ask
from kit.gateway import settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, chunked, get, post, sse_head

EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def pem(authority, tmp_path_factory):
    """Files with the certificate, its key, and the authority's certificate."""
    folder = tmp_path_factory.mktemp("pem")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder


@pytest.fixture(scope="module")
def trusting(authority):
    """A client's context."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def serving(pem):
    """A server's context."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem / "cert.pem", pem / "key.pem")
    return context


@pytest.fixture
def secure(gateways, upstream, pem):
    """A gateway that speaks TLS to clients; its port."""
    tls = {"cert_file": str(pem / "cert.pem"), "key_file": str(pem / "key.pem")}
    server = {"tls": tls, "read_timeout": "600ms"}
    return gateways.get(settings(gateways.backend_port, server=server)).port


@pytest.fixture
async def behind_tls(gateways, backend_port, pem, serving):
    """An upstream that speaks TLS, and the port of a gateway in front of it."""
    backend = {"url": f"https://localhost:{backend_port}", "tls": {"ca_file": str(pem / "ca.pem")}}
    gateway = gateways.get(settings(backends=[backend]))
    async with ScriptedUpstream(port=backend_port, tls=serving) as upstream:
        yield upstream, gateway.port
    assert upstream.unclean == []


async def test_bytes_pass_unchanged_from_a_tls_client(secure, upstream, trusting):
    body = bytes(range(256)) * 4096
    upstream.on_request = replies(sse_head(b"X-Odd: \xff") + chunked(body, EVENT))

    async with await RawClient.connect(secure, tls=trusting) as client:
        for _ in range(3):
            response = await client.ask(post(b"/v1/x%2f?", body, b"X-Case: \xe9"))
            assert response.chunks == [body, EVENT]
            assert response.get(b"x-odd") == b"\xff"

    assert upstream.requests[0].target == b"/v1/x%2f?"
    assert upstream.requests[0].body == body
    assert upstream.requests[0].head.get(b"x-case") == b"\xe9"


async def test_pieces_flow_one_by_one_to_a_tls_client(secure, upstream, trusting):
    arrived = asyncio.Queue()

    async def lock_step(connection, request):
        connection.write(sse_head())
        for number in range(10):
            connection.write(chunk(b"data: %d\n\n" % number))
            assert await arrived.get() == number
        connection.write(chunked())

    upstream.on_request = lock_step

    async with await RawClient.connect(secure, tls=trusting) as client:
        await client.send(post())
        for number in range(10):
            await client.read_until(b"data: %d\n\n" % number)
            await arrived.put(number)


@pytest.mark.parametrize("answered", [b"", sse_head() + chunk(EVENT)])
async def test_a_tls_client_that_leaves_frees_the_upstream(secure, upstream, trusting, answered):
    upstream.on_request = replies(answered, "stall")

    async with await RawClient.connect(secure, tls=trusting) as client:
        await client.send(post())
        await upstream.wait_requests(1)
        if answered:
            await client.read_until(EVENT)
        left_at = monotonic()
        client.transport.abort()
    await upstream.connections[0].wait_end(3)

    assert upstream.connections[0].ended_at - left_at < 0.5


@pytest.mark.parametrize("then", ["fin", "rst"])
async def test_a_cut_answer_is_not_finished_for_a_tls_client(secure, upstream, trusting, then):
    upstream.on_request = replies(sse_head() + chunk(EVENT), then)

    async with await RawClient.connect(secure, tls=trusting) as client:
        response = await client.ask(post())

    assert not response.is_complete


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_tls_client_that_does_not_go_on_is_let_go_at_the_read_time_out(secure, said):
    """Before, in and after the head of the handshake's first record."""
    async with await RawClient.connect(secure) as client:
        begun = monotonic()
        client.write(said)
        assert await client.wait_end(15)
        assert 0.5 < monotonic() - begun < 8  # `read_timeout` is 600 ms; without it this takes 10 s


async def test_plain_http_to_a_tls_port_is_refused(secure, upstream):
    async with await RawClient.connect(secure) as client:
        await client.send(get())
        with contextlib.suppress(Ended):
            await client.read_until(b"\r\n", 5)
        assert b"200 OK" not in client.received
    assert upstream.requests == []


async def test_bytes_pass_unchanged_to_a_tls_upstream(behind_tls):
    upstream, port = behind_tls
    body = bytes(range(256)) * 4096
    upstream.on_request = replies(answer(body))

    responses = [await ask(port, post(b"/v1/x", body)) for _ in range(3)]

    assert [response.body for response in responses] == [body] * 3
    assert [request.body for request in upstream.requests] == [body] * 3
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("raw", [sse_head() + chunk(EVENT), answer(b"x" * 99)[:-9], answer()[:20], b""])
async def test_a_cut_answer_of_a_tls_upstream_is_not_finished(behind_tls, raw):
    upstream, port = behind_tls
    upstream.on_request = replies(raw, "fin")

    response = await ask(port, post())

    assert response.status == 502 or not response.is_complete
    assert len(upstream.requests) == 1


async def test_a_client_that_leaves_frees_a_tls_upstream(behind_tls):
    upstream, port = behind_tls
    upstream.on_request = replies(sse_head() + chunk(EVENT), "stall")

    async with await RawClient.connect(port) as client:
        await client.send(post())
        await client.read_until(EVENT)
        left_at = monotonic()
        client.transport.abort()
    await upstream.connections[0].wait_end(3)

    assert upstream.connections[0].ended_at - left_at < 0.5


async def test_an_upstream_that_cannot_prove_its_name_gets_nothing(gateways, backend_port, serving):
    gateway = gateways.get(settings(backends=[{"url": f"https://localhost:{backend_port}"}]))
    async with ScriptedUpstream(port=backend_port, tls=serving) as upstream:
        response = await ask(gateway.port, post())

    assert response.status == 502
    assert upstream.requests == []
