"""A body that does not come with its head is read where it will lie, whatever stands around it."""

import ssl

import pytest
import trustme
from kit.client import RawClient, ask
from kit.gateway import settings
from kit.wire import get, lines

KIB = 1024
MIB = 1024 * KIB

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# One that comes whole after its head, ones that a socket's buffer does not hold, and one for which there is
# room only when a part of it has come.
SIZES = [1, 20 * KIB, 300 * KIB, 512 * KIB + 1, 3 * MIB]


def announced(size):
    return lines("POST /v1/x HTTP/1.1", "Host: h", f"Content-Length: {size}", "Expect: 100-continue")


def body_of(size):
    return bytes(range(251)) * (size // 251 + 1)


async def invited(client):
    assert await client.read_exactly(len(CONTINUE)) == CONTINUE


async def exchange(client, upstream, size):
    """The gateway waits for the body when that comes, with another request behind it."""
    body = body_of(size)[:size]
    await client.send(announced(size))
    await invited(client)
    await client.send(body[: size // 3])
    await client.send(body[size // 3 :] + get(b"/v1/behind"))

    first = await client.read_response(patience=60)
    second = await client.read_response(patience=60)

    assert (first.status, second.status) == (200, 200)
    sent, behind = upstream.requests[-2:]
    assert sent.body == body
    assert (behind.target, behind.body) == (b"/v1/behind", b"")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_large_body_arrives_whole_and_what_is_behind_it_too(
    new_gateway, upstream, backend_port, loop
):
    gateway = new_gateway(settings(backend_port), environ={"LLMPROXY_LOOP": loop})
    async with await RawClient.connect(gateway.port) as client:
        for size in [*SIZES, *reversed(SIZES)]:
            await exchange(client, upstream, size)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_so_it_does_with_tls(new_gateway, upstream, backend_port, tmp_path, loop):
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    tls = {"cert_file": str(tmp_path / "both.pem"), "key_file": str(tmp_path / "both.pem")}
    gateway = new_gateway(settings(backend_port, server={"tls": tls}), environ={"LLMPROXY_LOOP": loop})
    async with await RawClient.connect(gateway.port, tls=trusting) as client:
        for size in [*SIZES, *reversed(SIZES)]:
            await exchange(client, upstream, size)


@pytest.mark.parametrize("size", [512 * KIB, 16 * MIB])
async def test_what_is_announced_and_does_not_come_takes_no_memory(new_gateway, upstream, backend_port, size):
    """Each would be within the limit of a body; together the larger ones would be 1 GiB."""
    gateway, number = new_gateway(settings(backend_port)), 64
    before = gateway.own_bytes
    clients = [await RawClient.connect(gateway.port) for _ in range(number)]
    for client in clients:
        await client.send(announced(size))
        await invited(client)
        await client.send(b"x" * 10 * KIB)
    assert (await ask(gateway.port, get())).status == 200  # so what they sent has been read

    assert gateway.own_bytes - before < number * 64 * KIB

    for client in clients:
        client.close()
