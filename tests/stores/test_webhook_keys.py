"""A service that knows keys: what it is asked, and which of its answers let anybody in."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from kit.key_worlds import WebhookWorld

from proxy.access import digest
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.webhook_keys import MAX_ANSWER_BYTES, WebhookKeys

KEY = "sk-canary"


@pytest.fixture
async def service():
    service = WebhookWorld()
    await service.start()
    yield service
    await service.close()


async def find(service):
    return await service.store().find(digest(KEY.encode()), KEY)


async def test_it_is_asked_with_the_key_and_the_time(service):
    service.answer = web.json_response({"status": 0})

    await find(service)

    assert service.questions == [{"api_key": KEY, "timestamp": 1_770_000_000}]


IN = [
    {"allow": True},
    {"status": 0},
    {"status": "active", "user_id": "u1"},
    {"allow": True, "status": "active"},
]


@pytest.mark.parametrize("status", [200, 201, 299])
@pytest.mark.parametrize("body", IN)
async def test_a_plain_yes_lets_in(service, status, body):
    service.answer = web.json_response(body, status=status)

    found = await find(service)

    assert (found.status, found.user_id) == ("active", body.get("user_id", ""))


UNKNOWN = [
    (401, {"error": {}}),
    (404, {}),
    (404, {"allow": True}),
    (401, {"status": 0}),
    (200, {"status": "not_found"}),
]


@pytest.mark.parametrize(("status", "body"), UNKNOWN)
async def test_no_such_key_is_none(service, status, body):
    service.answer = web.json_response(body, status=status)

    assert await find(service) is None


REFUSED = [
    (403, {}, "disabled"),
    (403, {"allow": True}, "disabled"),
    (200, {"allow": False}, "disabled"),
    (200, {"status": 3}, "expired"),
]


@pytest.mark.parametrize(("status", "body", "meant"), REFUSED)
async def test_a_no_is_a_no(service, status, body, meant):
    service.answer = web.json_response(body, status=status)

    assert (await find(service)).status == meant


NO_ANSWER = [
    web.json_response({}),
    web.json_response({"user_id": "u1"}),
    web.json_response([{"status": 0}]),
    web.json_response({"status": 0, "expires_at": "soon"}),
    web.Response(text="OK"),
    web.Response(text=""),
    web.Response(status=204),
    web.Response(text='{"status": 0', content_type="application/json"),
    web.Response(body=b'{"status": 0, "x": "' + b"x" * MAX_ANSWER_BYTES + b'"}'),
    web.json_response({"status": 0}, status=302, headers={"Location": "/keys"}),
    web.json_response({"status": 0}, status=400),
    web.json_response({"status": 0}, status=429),
    web.json_response({"status": 0}, status=500),
]


@pytest.mark.parametrize(
    "answer", NO_ANSWER, ids=lambda answer: f"{answer.status}-{(answer.body or b'')[:30]!r}"
)
async def test_anything_else_is_no_answer(service, answer):
    service.answer = answer

    with pytest.raises(LookupFailed):
        await find(service)

    assert len(service.questions) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_in_front_that_says_the_service_is_away_is_believed(service, status):
    service.answer = web.json_response({"status": 0}, status=status)

    with pytest.raises(StoreUnavailable) as raised:
        await find(service)

    assert not isinstance(raised.value, LookupFailed)


async def test_configured_headers_and_method_are_sent():
    seen = []

    async def answer(request):
        seen.append((request.method, request.headers["X-Secret"], request.headers["Content-Type"]))
        return web.json_response({"allow": True})

    app = web.Application()
    app.router.add_put("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    store = WebhookKeys(
        "w", aiohttp.ClientSession(), url, wall=lambda: 0.0, method="PUT", headers={"X-Secret": "s"}
    )

    await store.find(digest(b"a"), "a")

    assert seen == [("PUT", "s", "application/json")]
    await store.close()
    await runner.cleanup()


async def test_a_connection_that_ends_in_the_middle_is_no_answer():
    async def cut(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"status": 0}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    store = WebhookKeys("w", aiohttp.ClientSession(), url, wall=lambda: 0.0)

    with pytest.raises(StoreUnavailable):
        await store.find(digest(b"a"), "a")

    await store.close()
    server.close()
    await server.wait_closed()
