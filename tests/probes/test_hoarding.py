"""What a client can make the gateway keep: little, and not for ever.

Each of these clients stays within every limit of a single request and asks for
nothing that is refused. What they try is to be remembered.
"""

import asyncio
from time import monotonic

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.upstream import replies
from kit.wire import answer, get, lines, post

MIB = 1024 * 1024

# So many such requests carry 4 MiB and more; what is kept of them must be far less.
NUMBER = 64


def long_name(number):
    return get(b"/v1/x", b"x-%d-" % number + b"n" * 60_000 + b": a")


def long_trailer(number):
    head = lines("POST /v1/x HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")
    return head + b"0\r\nx-%d-" % number + b"n" * 16_000 + b": a\r\n\r\n"


def long_model(number):
    return post(body=b'{"model":"%d%b"}' % (number, b"m" * 200_000))


def long_target(number):
    return get(b"/v1/models/%d" % number + b"%41" * 5000)


@pytest.mark.parametrize(
    ("request_of", "number"),
    [(long_name, NUMBER), (long_trailer, NUMBER * 4), (long_model, NUMBER), (long_target, NUMBER * 4)],
)
async def test_what_is_new_each_time_is_not_kept(new_gateway, upstream, backend_port, request_of, number):
    """The second half of the requests costs no memory: what is remembered of them has a size."""
    gateway = new_gateway(settings(backend_port))
    for at in range(number):
        await ask(gateway.port, request_of(at))
    settled = gateway.own_bytes

    for at in range(number, 3 * number):
        assert (await ask(gateway.port, request_of(at))).status in (200, 404)

    assert gateway.own_bytes - settled < 2 * MIB


async def test_pages_that_nobody_reads_are_not_written(new_gateway, upstream, backend_port):
    """As many as a client likes to ask for; once it reads on, it gets them all."""
    gateway, pages = new_gateway(settings(backend_port)), 3000  # some 15 MiB
    assert (await ask(gateway.port, get(b"/metrics"))).status == 200
    async with await RawClient.connect(gateway.port, receive_buffer=8192) as client:
        client.pause()
        before = gateway.own_bytes
        client.write(get(b"/metrics") * pages)
        grown, previous = 0, -1
        while grown != previous:
            await asyncio.sleep(0.7)
            previous, grown = grown, gateway.own_bytes - before

        assert grown < 3 * MIB

        client.resume()
        for _ in range(pages):
            response = await client.read_response(patience=60)
            assert (response.status, response.is_complete) == (200, True)
        assert client.unread == b""


async def test_a_client_that_reads_nothing_is_let_go(gateways, upstream):
    gateway = gateways.get(settings(gateways.backend_port, server={"idle_timeout": "1s"}))
    async with await RawClient.connect(gateway.port, receive_buffer=8192) as client:
        assert (await client.ask(get(b"/health"))).status == 200
        files = gateway.open_files
        client.pause()
        client.write(get(b"/metrics") * 3000)

        await eventually(lambda: gateway.open_files < files, "the connection is gone", 60)

        client.resume()
        assert await client.wait_end() in ("fin", "rst")
        assert client.unread.count(b"HTTP/1.1 200 OK") < 3000


@pytest.mark.parametrize("drop", [b"\r\n", b"\r", b"\n"])
async def test_empty_lines_buy_no_time(gateways, upstream, drop):
    """However slowly they drip, the first request is due when it was without them."""
    port = gateways.get(settings(gateways.backend_port, server={"read_timeout": "1s"})).port
    async with await RawClient.connect(port) as client:
        begun = monotonic()
        while client.ending is None:
            client.write(drop)
            await asyncio.sleep(0.3)
            assert monotonic() - begun < 30

    assert upstream.requests == []


async def test_an_empty_line_behind_a_body_is_no_request(port, upstream):
    """Some old clients send it; what follows is served, at once or later."""
    upstream.on_request = replies(answer(b"fine"))

    async with await RawClient.connect(port) as client:
        for behind in (b"\r\n", b"\r\n", b""):
            assert (await client.ask(post(body=b"{}") + behind)).body == b"fine"
        client.write(b"\r")
        client.write(b"\n")
        assert (await client.ask(get())).body == b"fine"

    assert len(upstream.requests) == 4
