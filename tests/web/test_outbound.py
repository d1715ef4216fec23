"""Backends behind outbound proxies, through a running gateway."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from kit.client import RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.outbound import OutboundServer
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, chunk, get, post, sse_head

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
BACK_OFF = {"breaker": {"enabled": False}, "affinity": {"enabled": False}, "load_balance": "round_robin"}


@pytest.fixture
async def stack():
    async with AsyncExitStack() as made:
        yield made


def behind(upstream, proxy, **more):
    return {"name": "far", "url": f"http://localhost:{upstream.port}", "proxy": proxy, **more}


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_bytes_pass_a_proxy_unchanged_and_as_they_come(new_gateway, stack, scheme):
    gate = asyncio.Event()

    async def script(connection, request):
        connection.write(sse_head() + chunk(b"data: 1\n\n"))
        await gate.wait()
        connection.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    upstream = await stack.enter_async_context(ScriptedUpstream(script))
    proxy = await stack.enter_async_context(OutboundServer(user="gate", password="canary"))
    gateway = new_gateway(settings(backends=[behind(upstream, proxy.url(scheme))]))
    client = await stack.enter_async_context(await RawClient.connect(gateway.port))

    client.write(post(body=CHAT))
    await client.read_head()
    await client.read_until(b"data: 1\n\n\r\n")  # while the rest has not been sent
    gate.set()
    rest = await client.read_until(b"\r\n0\r\n\r\n")

    assert b"data: [DONE]" in rest
    (request,) = upstream.requests
    assert request.raw.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert request.body == CHAT
    assert b"canary" not in request.raw and b"roxy-" not in request.raw
    assert upstream.unclean == []
    assert "canary" not in gateway.output


async def test_connections_through_a_proxy_are_kept(new_gateway, stack):
    upstream = await stack.enter_async_context(ScriptedUpstream())
    proxy = await stack.enter_async_context(OutboundServer())
    keeping = {"timeouts": {"keep_alive": "60s"}}
    gateway = new_gateway(settings(backends=[behind(upstream, proxy.url("http"))], routing=keeping))

    for _ in range(5):
        assert (await ask(gateway.port, post(body=CHAT))).status == 200

    assert len(proxy.asked) == 1
    assert [request.connection for request in upstream.requests] == [0] * 5


async def test_a_client_that_leaves_ends_the_way_through_the_proxy(new_gateway, stack):
    async def script(connection, request):
        connection.write(sse_head() + chunk(b"data: 1\n\n"))
        await connection.stall()

    upstream = await stack.enter_async_context(ScriptedUpstream(script))
    proxy = await stack.enter_async_context(OutboundServer())
    gateway = new_gateway(settings(backends=[behind(upstream, proxy.url("socks5h"))]))

    async with await RawClient.connect(gateway.port) as client:
        client.write(post(body=CHAT))
        await client.read_head()

    await upstream.connections[0].wait_end()


@pytest.mark.parametrize("way", ["gone", "refuses"])
async def test_a_proxy_that_fails_is_a_server_that_cannot_be_reached(new_gateway, stack, way):
    far = await stack.enter_async_context(ScriptedUpstream())
    near = await stack.enter_async_context(ScriptedUpstream())
    proxy = await stack.enter_async_context(OutboundServer(user="gate", password="right"))
    dead = f"http://gate:canary@127.0.0.1:{free_port() if way == 'gone' else proxy.port}"
    backends = [behind(far, dead), {"name": "near", "url": f"http://127.0.0.1:{near.port}"}]
    gateway = new_gateway(settings(backends=backends, routing=BACK_OFF))

    answers = [await ask(gateway.port, post(body=CHAT)) for _ in range(6)]

    assert {response.status for response in answers} == {200}
    assert len(near.requests) == 6
    assert far.requests == []
    await eventually(
        lambda: '"attempts":["far:connect_failed","near:200"]' in gateway.output, "the access line tells"
    )
    assert "canary" not in gateway.output


@pytest.mark.parametrize(
    ("way", "phase"),
    [
        ("gone", "connecting to its proxy"),
        ("refuses", "asking its proxy for a way"),
        ("silent", "asking its proxy for a way"),
    ],
)
async def test_an_error_names_the_backend_and_how_far_it_came(new_gateway, stack, way, phase):
    async def stall(connection):
        await connection.stall()

    upstream = await stack.enter_async_context(ScriptedUpstream())
    strict = await stack.enter_async_context(OutboundServer(user="gate", password="right"))
    silent = await stack.enter_async_context(ScriptedUpstream(on_connection=stall))
    port = {"gone": free_port(), "refuses": strict.port, "silent": silent.port}[way]
    routing = {"timeouts": {"connect": "3s"}, "breaker": {"enabled": False}}
    gateway = new_gateway(
        settings(backends=[behind(upstream, f"http://gate:canary@127.0.0.1:{port}")], routing=routing)
    )

    response = await ask(gateway.port, post(body=CHAT))

    assert response.status == 502
    error = json.loads(response.body)["error"]
    assert error["message"] == f"The upstream server far could not be reached: {phase} failed."
    assert b"canary" not in response.body
    assert "canary" not in gateway.output


async def test_checks_lists_and_figures_go_through_the_proxy_too(new_gateway, stack):
    async def script(connection, request):
        replied = {
            b"/v1/models": b'{"object":"list","data":[{"id":"seen"}]}',
            b"/metrics": b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n",
        }
        connection.write(answer(replied.get(request.target, b"{}")))

    # Nobody but the proxy knows this name.
    upstream = await stack.enter_async_context(ScriptedUpstream(script))
    proxy = await stack.enter_async_context(OutboundServer())
    gateway = new_gateway(
        settings(
            backends=[behind(upstream, proxy.url("socks5h"))],
            routing={"load_balance": "engine_load"},
            health_check={"enabled": True, "interval": "100ms"},
        )
    )

    listed = await ask(gateway.port, get(b"/v1/models"))

    assert [model["id"] for model in json.loads(listed.body)["data"]] == ["seen"]

    def targets():
        return {request.target for request in upstream.requests}

    await eventually(lambda: targets() >= {b"/health", b"/metrics", b"/v1/models"}, "all were asked for")
    assert len(proxy.asked) >= len(upstream.requests) - 1


async def test_a_server_is_down_while_its_proxy_is_and_back_with_it(new_gateway, stack):
    upstream = await stack.enter_async_context(ScriptedUpstream())
    proxy = OutboundServer()
    async with proxy:
        checks = {"enabled": True, "interval": "100ms", "unhealthy_threshold": 1, "healthy_threshold": 1}
        backend = behind(upstream, proxy.url("http"))
        gateway = new_gateway(
            settings(backends=[backend], health_check=checks, routing={"timeouts": {"keep_alive": "0s"}})
        )
        assert (await ask(gateway.port, post(body=CHAT))).status == 200

    async def status():
        return (await ask(gateway.port, post(body=CHAT))).status

    async def is_out():
        return await status() == 503

    async def is_back():
        return await status() == 200

    await eventually(is_out, "the checks have called it down")
    async with proxy:  # on the port it had
        await eventually(is_back, "it serves again")


async def test_tokens_are_fetched_through_the_proxy(new_gateway, stack, tmp_path):
    grant = answer(b'{"access_token": "at-1", "expires_in": 3600}')
    provider = await stack.enter_async_context(ScriptedUpstream(replies(grant)))
    upstream = await stack.enter_async_context(ScriptedUpstream())
    proxy = await stack.enter_async_context(OutboundServer(user="gate", password="canary"))
    file = tmp_path / "token"
    file.write_text("rt-1")
    file.chmod(0o600)
    oauth = {
        "token_url": f"http://localhost:{provider.port}/token",
        "client_id": "cid",
        "refresh_token_file": str(file),
    }
    gateway = new_gateway(settings(backends=[behind(upstream, proxy.url("socks5h"), oauth=oauth)]))

    async def is_served():
        return (await ask(gateway.port, post(body=CHAT))).status == 200

    await eventually(is_served, "the token is there")

    assert b"\r\nAuthorization: Bearer at-1\r\n" in upstream.requests[0].raw
    assert b"refresh_token=rt-1" in provider.requests[0].body
    assert f"localhost:{provider.port}" in proxy.asked
    assert "canary" not in gateway.output


async def test_what_is_known_of_one_proxy_says_nothing_of_another(new_gateway, stack):
    """The same server twice, by two ways of which one is dead: its breaker is its own."""
    upstream = await stack.enter_async_context(ScriptedUpstream())
    proxy = await stack.enter_async_context(OutboundServer())
    dead = behind(upstream, f"socks5h://127.0.0.1:{free_port()}")
    alive = {**behind(upstream, proxy.url("socks5h")), "name": "other"}
    breaker = {"failures": 1, "open_for": "60s"}
    gateway = new_gateway(settings(backends=[dead, alive], routing={**BACK_OFF, "breaker": breaker}))

    answers = [await ask(gateway.port, post(body=CHAT)) for _ in range(6)]
    page = (await ask(gateway.port, get(b"/metrics"))).body

    assert {response.status for response in answers} == {200}
    assert b'llmproxy_upstream_breaker_state{backend="other"} 0' in page
    assert b'llmproxy_upstream_breaker_state{backend="far"} 0' not in page


async def test_check_says_nothing_of_a_proxy_that_is_well_written(new_gateway, stack):
    upstream = await stack.enter_async_context(ScriptedUpstream())
    gateway = new_gateway(settings(backends=[behind(upstream, "socks5h://gate:canary@127.0.0.1:1080")]))

    good = gateway.check()
    gateway.write(settings(backends=[behind(upstream, "socks4://gate:canary@127.0.0.1:1080")]))
    bad = gateway.check()

    assert good.returncode == 0
    assert "proxy:" not in good.stdout + good.stderr
    assert bad.returncode != 0
    assert "backends[0].proxy" in bad.stdout + bad.stderr
    assert "canary" not in good.stdout + good.stderr + bad.stdout + bad.stderr
