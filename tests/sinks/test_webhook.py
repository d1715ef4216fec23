"""The webhook against real receivers."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
import pytest
from aiohttp import web

from proxy.sinks.webhook import CONCURRENT_POSTS, Webhook, delivery_id, retry_after, signature
from proxy.usage.record import UsageRecord
from proxy.usage.tokens import Usage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def record(number: int) -> UsageRecord:
    return UsageRecord(
        id=f"r-{number}", request_id=f"req-{number}", timestamp=datetime.now(UTC), model="qwen",
        method="POST", path="/v1/chat/completions", backend="b", pool="default", status_code=200,
        outcome="complete", latency_ms=500, usage=Usage(1, 2, 3),
    )  # fmt: skip


LINES = [record(number).to_json() for number in range(20)]


class Receiver:
    """Keeps every request; answers by `answer`, else with 204."""

    def __init__(self, answer: Handler | None = None) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer = answer
        self.open = self.most_open = 0
        self.paths: set[str] = set()
        self.url = ""

    async def handler(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.paths.add(request.path)
        self.most_open = max(self.open, self.most_open)
        try:
            self.requests.append((dict(request.headers), await request.read()))
            return await self.answer(request) if self.answer else web.Response(status=204)
        finally:
            self.open -= 1

    @property
    def records(self) -> list[str]:
        found = [orjson.loads(body) for _, body in self.requests]
        return [record["id"] for body in found for record in (body if isinstance(body, list) else [body])]


@asynccontextmanager
async def receiving(answer: Handler | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{rest:.*}", receiver.handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/usage"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def webhook(url: str, **options) -> AsyncIterator[Webhook]:
    hook = Webhook("billing", url=url, **options)
    try:
        yield hook
    finally:
        await hook.close()


def answering(status: int, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="x", headers=headers)

    return answer


async def test_a_record_is_posted_as_one_object():
    async with receiving() as receiver, webhook(receiver.url, headers={"X-Own": "1"}) as hook:
        delivery = await hook.deliver(LINES[:1])

    ((headers, body),) = receiver.requests
    assert not delivery.left
    assert orjson.loads(body) == orjson.loads(LINES[0])
    assert (headers["Content-Type"], headers["X-Own"]) == ("application/json", "1")
    assert headers["X-LLMProxy-Delivery"] == "r-0"
    assert "X-LLMProxy-Signature" not in headers


async def test_singles_are_posted_some_at_a_time():
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    async with receiving(slow) as receiver, webhook(receiver.url) as hook:
        assert not (await hook.deliver(LINES)).left

    assert sorted(receiver.records) == sorted(f"r-{number}" for number in range(20))
    assert receiver.most_open == CONCURRENT_POSTS


async def test_batches_are_arrays_of_bounded_length():
    async with receiving() as receiver, webhook(receiver.url, batch_size=8) as hook:
        assert not (await hook.deliver(LINES)).left

    assert [len(orjson.loads(body)) for _, body in receiver.requests] == [8, 8, 4]
    assert receiver.records == [f"r-{number}" for number in range(20)]


async def test_batches_can_be_sent_singly_and_stay_arrays():
    async with receiving() as receiver, webhook(receiver.url, batch_size=8) as hook:
        await hook.deliver(LINES[:3], singly=True)

    assert [len(orjson.loads(body)) for _, body in receiver.requests] == [1, 1, 1]


async def test_the_flat_form_can_be_had():
    async with receiving() as receiver, webhook(receiver.url, format="flat") as hook:
        await hook.deliver(LINES[:1])

    found = orjson.loads(receiver.requests[0][1])
    assert (found["id"], found["prompt_tokens"], found["endpoint"]) == ("r-0", 1, "/v1/chat/completions")


async def test_every_body_is_signed():
    async with receiving() as receiver, webhook(receiver.url, secret="s3cret", clock=lambda: 1234.9) as hook:
        await hook.deliver(LINES[:1])

    headers, body = receiver.requests[0]
    digest = hmac.new(b"s3cret", b"1234." + body, hashlib.sha256).hexdigest()
    assert headers["X-LLMProxy-Signature"] == f"t=1234,v1={digest}" == signature(b"s3cret", 1234, body)


async def test_a_repeated_delivery_has_the_same_id_and_another_one_has_not():
    async with receiving() as receiver, webhook(receiver.url, batch_size=10) as hook:
        await hook.deliver(LINES[:10])
        await hook.deliver(LINES)

    first, again, other = (headers["X-LLMProxy-Delivery"] for headers, _ in receiver.requests)
    assert first == again == delivery_id(LINES[:10])
    assert other != first


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_a_success(status):
    async with receiving(answering(status)) as receiver, webhook(receiver.url) as hook:
        assert not (await hook.deliver(LINES[:1])).left


@pytest.mark.parametrize("status", [301, 302, 304, 401, 403, 404, 408, 429, 500, 503])
async def test_nothing_else_is_and_the_rest_waits(status):
    async with receiving(answering(status, Location="/elsewhere")) as receiver, webhook(receiver.url) as hook:
        delivery = await hook.deliver(LINES)

    assert (delivery.left, delivery.refused) == (LINES, [])
    assert delivery.reason == f"status {status}"
    assert len(receiver.requests) <= CONCURRENT_POSTS
    assert receiver.paths == {"/usage"}


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_some_statuses_mean_the_record(status):
    async def picky(request: web.Request) -> web.Response:
        return web.Response(status=status if orjson.loads(await request.read())["id"] == "r-3" else 200)

    async with receiving(picky) as receiver, webhook(receiver.url) as hook:
        delivery = await hook.deliver(LINES)

    assert (delivery.left, delivery.refused) == ([LINES[3]], [LINES[3]])
    assert len(receiver.requests) == 20


async def test_a_receiver_may_say_when_it_wants_to_be_asked_again():
    busy = answering(503, **{"Retry-After": "17"})
    async with receiving(busy) as receiver, webhook(receiver.url) as hook:
        assert (await hook.deliver(LINES[:1])).retry_after == 17.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("9" * 400, 999999999999.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(value, expected):
    assert retry_after(value, 60.0) == expected


async def test_a_receiver_that_refuses_connections_is_a_failure():
    async with receiving() as receiver:
        pass
    async with webhook(receiver.url) as hook:
        delivery = await hook.deliver(LINES[:2])

    assert (delivery.left, delivery.refused, delivery.reason) == (LINES[:2], [], "ClientConnectorError")


async def test_a_receiver_that_hangs_costs_the_timeout_and_no_more():
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    loop = asyncio.get_running_loop()
    async with receiving(hang) as receiver, webhook(receiver.url, timeout=0.1) as hook:
        began = loop.time()
        delivery = await hook.deliver(LINES[:1])
        took = loop.time() - began

    assert delivery.left == LINES[:1]
    assert took < 2


async def test_an_endless_answer_after_a_2xx_is_not_read():
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with receiving(endless) as receiver, webhook(receiver.url, timeout=5.0) as hook:
        async with asyncio.timeout(3):
            delivery = await hook.deliver(LINES[:1])

    assert not delivery.left


async def test_a_line_that_is_no_record_is_refused_not_fatal():
    async with receiving() as receiver, webhook(receiver.url, format="flat") as hook:
        delivery = await hook.deliver([b"{}", LINES[0]])

    assert (delivery.left, delivery.refused) == ([b"{}"], [b"{}"])
    assert receiver.records == ["r-0"]


async def test_connections_are_used_again():
    ports = set()

    async def note(request: web.Request) -> web.Response:
        ports.add(request.transport.get_extra_info("peername")[1])
        return web.Response(text="ok")

    async with receiving(note) as receiver, webhook(receiver.url, batch_size=2) as hook:
        await hook.deliver(LINES)

    assert len(ports) == 1


async def test_an_address_that_is_none_is_a_failure_that_does_not_repeat_it():
    async with webhook("http://user:hunter2@[bad/") as hook:
        delivery = await hook.deliver(LINES[:1])

    assert delivery.left == LINES[:1]
    assert "hunter2" not in delivery.reason
