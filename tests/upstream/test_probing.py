"""Questions to real servers: checks, model lists, and what becomes of bad answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

import pytest
from kit import wire
from kit.upstream import Connection, RequestScript, ScriptedUpstream, replies
from kit.wire import Request

from proxy.balancers.load import EngineLoad
from proxy.balancers.round_robin import RoundRobin
from proxy.health.thresholds import ThresholdSettings
from proxy.upstream import ask as asking
from proxy.upstream.ask import NoAnswer, ask
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import Changes, Endpoint, EndpointSpec, Vitals
from proxy.upstream.engines import Engines, ScrapeSettings
from proxy.upstream.model_lists import ModelLists
from proxy.upstream.pool import Pool
from proxy.upstream.prober import CheckSettings, Prober, pause_after, probe
from proxy.upstream.watch import Watch

MakeEndpoint = Callable[..., Endpoint]

GOOD = wire.answer()
LIST = wire.answer(b'{"object":"list","data":[{"id":"a","max_model_len":7},{"id":"b"},{"no":"id"},5]}')


@pytest.fixture
async def make_endpoint() -> AsyncIterator[MakeEndpoint]:
    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    made = []

    def make(port: int, **spec: object) -> Endpoint:
        thresholds = ThresholdSettings(healthy=2, unhealthy=2)
        endpoint = Endpoint(
            EndpointSpec(f"e{port}", "http", "127.0.0.1", port, **spec),
            Vitals(Changes(), thresholds=thresholds),
            lambda e: Connections(e.spec.host, e.spec.port, watch=watch, loop=loop),
        )
        made.append(endpoint)
        return endpoint

    yield make
    for endpoint in made:
        assert endpoint.connections.open == 0
        endpoint.close()
    watch.close()


async def until(condition: Callable[[], bool], patience: float = 5.0) -> None:
    deadline = monotonic() + patience
    while not condition():
        assert monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)


async def test_a_question_carries_the_credential_and_the_base_path(make_endpoint: MakeEndpoint) -> None:
    async with ScriptedUpstream(replies(LIST)) as upstream:
        endpoint = make_endpoint(
            upstream.port, base_path=b"/openai", headers=((b"Authorization", b"Bearer sk-up"),)
        )

        answer = await ask(endpoint, "/v1/models", within=5.0)

    request = upstream.requests[0].raw
    assert answer.status == 200
    assert request.startswith(b"GET /openai/v1/models HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port)
    assert b"\r\nAuthorization: Bearer sk-up\r\n" in request
    assert upstream.unclean == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (replies(b"", "fin"), "reset_before_answer"),
        (replies(b"", "rst"), "reset_before_answer"),
        (replies(b"", "stall"), "no answer in time"),
        (replies(b"SSH-2.0-OpenSSH\r\n", "stall"), "bad_answer"),
        (replies(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "fin"), "upstream_cut"),
    ],
)
async def test_no_answer_says_why(make_endpoint: MakeEndpoint, script: RequestScript, why: str) -> None:
    async with ScriptedUpstream(script) as upstream:
        with pytest.raises(NoAnswer, match=why):
            await ask(make_endpoint(upstream.port), "/health", within=0.3)


async def test_a_refused_connection_is_no_answer(make_endpoint: MakeEndpoint) -> None:
    async with ScriptedUpstream() as upstream:
        port = upstream.port

    with pytest.raises(NoAnswer):
        await ask(make_endpoint(port), "/health", within=1.0)


async def test_an_endless_answer_is_not_read_to_its_end(
    make_endpoint: MakeEndpoint,
) -> None:
    async def endless(connection: Connection, request: Request) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(asking.MAX_ANSWER_BYTES // 65536 + 8):
            connection.write(b"x" * 65536)
        await connection.stall()

    async with ScriptedUpstream(endless) as upstream:
        with pytest.raises(NoAnswer, match="too large"):
            await ask(make_endpoint(upstream.port), "/metrics", within=10.0)


@pytest.mark.parametrize(
    ("status", "settings", "why"),
    [
        (b"200 OK", CheckSettings(), None),
        (b"503 Service Unavailable", CheckSettings(), "status 503"),
        (b"204 No Content", CheckSettings(expected=frozenset((200, 204))), None),
        (b"404 Not Found", CheckSettings(path="/v1/models", method="POST", expected=frozenset((404,))), None),
    ],
)
async def test_a_check_is_good_if_the_status_is_an_expected_one(
    make_endpoint: MakeEndpoint, status: bytes, settings: CheckSettings, why: str | None
) -> None:
    script = replies(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    if status.startswith(b"204"):
        script = replies(b"HTTP/1.1 " + status + b"\r\n\r\n")
    async with ScriptedUpstream(script) as upstream:
        assert await probe(make_endpoint(upstream.port), settings) == why

    assert upstream.requests[0].raw.startswith(f"{settings.method} {settings.path} ".encode())
    assert upstream.unclean == []


async def test_a_server_that_stops_answering_goes_down_and_comes_back_within_one_interval(
    make_endpoint: MakeEndpoint,
) -> None:
    settings = CheckSettings(interval=0.4, timeout=0.2)
    async with ScriptedUpstream(replies(GOOD)) as upstream:
        endpoint = make_endpoint(upstream.port)
        prober = Prober(monotonic, lambda: 0.0)
        prober.watch({endpoint: settings})
        await upstream.wait_requests(1)

        upstream.on_request = replies(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: not endpoint.is_up)
        upstream.on_request = replies(GOOD)
        recovered_at = monotonic()
        await until(lambda: endpoint.is_up)

        assert monotonic() - recovered_at < settings.interval * 2
        await prober.close()


async def test_checks_go_on_undisturbed_where_nothing_changed(make_endpoint: MakeEndpoint) -> None:
    slow = CheckSettings(interval=60.0)
    async with ScriptedUpstream(replies(GOOD)) as upstream, ScriptedUpstream(replies(GOOD)) as other:
        stays, goes = make_endpoint(upstream.port), make_endpoint(other.port)
        prober = Prober(monotonic, lambda: 0.0)
        prober.watch({stays: slow, goes: slow})
        await upstream.wait_requests(1)
        await other.wait_requests(1)

        prober.watch({stays: slow})
        prober.watch({stays: slow, goes: slow})
        await other.wait_requests(2)

        assert len(upstream.requests) == 1
        await prober.close()


async def test_nothing_is_checked_after_close(make_endpoint: MakeEndpoint) -> None:
    before = asyncio.all_tasks()
    async with ScriptedUpstream(replies(GOOD)) as upstream:
        prober = Prober(monotonic, lambda: 0.0)
        prober.watch({make_endpoint(upstream.port): CheckSettings(interval=0.01)})
        await upstream.wait_requests(3)

        await prober.close()

    assert asyncio.all_tasks() == before


async def test_an_endpoint_that_is_down_is_asked_more_often(make_endpoint: MakeEndpoint) -> None:
    endpoint, settings = make_endpoint(1), CheckSettings(interval=12.0)

    assert pause_after(endpoint, settings, good=True) == 12.0
    assert pause_after(endpoint, settings, good=False) == 12.0
    endpoint.vitals.checked(False, 0.0)
    endpoint.vitals.checked(False, 0.0)
    assert pause_after(endpoint, settings, good=False) == 6.0
    assert pause_after(endpoint, settings, good=True) == 3.0


def pool_of(*endpoints: Endpoint) -> Pool:
    return Pool("default", endpoints, RoundRobin(lambda: 0.0), Changes())


async def test_model_lists_are_joined_and_asked_for_once(make_endpoint: MakeEndpoint) -> None:
    now = [100.0]
    lists = ModelLists(lambda: now[0])
    async with (
        ScriptedUpstream(replies(LIST)) as one,
        ScriptedUpstream(replies(wire.answer(b'{"data":[{"id":"b"},{"id":"c"}]}'))) as two,
    ):
        pool = pool_of(make_endpoint(one.port), make_endpoint(two.port))

        await asyncio.gather(*(lists.refresh([pool]) for _ in range(5)))
        await lists.refresh([pool])

        assert [model["id"] for model in lists.known(pool)] == ["a", "b", "c"]
        assert (len(one.requests), len(two.requests)) == (1, 1)

        now[0] += 31.0
        await lists.refresh([pool])
        assert (len(one.requests), len(two.requests)) == (2, 2)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":null}', b'{"data":{"id":"x"}}', b"\xff", b'"data"']
)
async def test_a_list_that_cannot_be_read_leaves_the_last_one(
    make_endpoint: MakeEndpoint, body: bytes
) -> None:
    lists = ModelLists(monotonic)
    async with ScriptedUpstream(replies(LIST)) as upstream:
        pool = pool_of(make_endpoint(upstream.port))
        await lists.refresh([pool])

        upstream.on_request = replies(wire.answer(body))
        await lists.refresh([pool], max_age=0.0)

        assert [model["id"] for model in lists.known(pool)] == ["a", "b"]
        assert len(upstream.requests) == 2


async def test_a_dead_server_lists_nothing_and_is_left_alone_for_a_while(make_endpoint: MakeEndpoint) -> None:
    async with ScriptedUpstream() as upstream:
        port = upstream.port
    lists, pool = ModelLists(monotonic), pool_of(make_endpoint(port))

    await lists.refresh([pool])

    assert lists.known(pool) == ()


async def test_forgets_endpoints_that_are_gone(make_endpoint: MakeEndpoint) -> None:
    lists = ModelLists(monotonic)
    async with ScriptedUpstream(replies(LIST)) as upstream:
        pool = pool_of(make_endpoint(upstream.port))
        await lists.refresh([pool])

        lists.forget_others([])

    assert lists.known(pool) == ()


async def test_a_client_that_leaves_does_not_take_the_list_from_others(make_endpoint: MakeEndpoint) -> None:
    release = asyncio.Event()

    async def slow(connection: Connection, request: Request) -> None:
        await release.wait()
        connection.write(LIST)

    lists = ModelLists(monotonic)
    async with ScriptedUpstream(slow) as upstream:
        pool = pool_of(make_endpoint(upstream.port))
        leaving = asyncio.create_task(lists.refresh([pool]))
        staying = asyncio.create_task(lists.refresh([pool]))
        await upstream.wait_requests(1)

        leaving.cancel()
        release.set()
        await staying

    assert [model["id"] for model in lists.known(pool)] == ["a", "b"]
    assert len(upstream.requests) == 1


async def test_close_ends_questions_that_are_under_way(make_endpoint: MakeEndpoint) -> None:
    lists = ModelLists(monotonic)
    async with ScriptedUpstream(replies(b"", "stall")) as upstream:
        asked = asyncio.create_task(lists.refresh([pool_of(make_endpoint(upstream.port))]))
        await upstream.wait_requests(1)

        await lists.close()
        await asked


METRICS = wire.answer(b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting 2.0\n')


async def test_engines_figures_are_kept_fresh(make_endpoint: MakeEndpoint) -> None:
    async with ScriptedUpstream(replies(METRICS)) as upstream:
        endpoint = make_endpoint(upstream.port)
        engines = Engines(monotonic, lambda: 0.0)

        engines.watch([endpoint], ScrapeSettings(interval=0.01))
        await until(lambda: endpoint.load.engine is not None)
        first_at = endpoint.load.engine_at
        await upstream.wait_requests(3)

        assert endpoint.load.engine == EngineLoad(3.0, 2.0, None)
        assert endpoint.load.engine_at > first_at
        assert upstream.requests[0].raw.startswith(b"GET /metrics ")
        await engines.close()


@pytest.mark.parametrize(
    "answer", [wire.answer(b"not metrics"), wire.answer(b"", status=b"404 Not Found"), b"garbage\r\n\r\n"]
)
async def test_an_engine_without_figures_keeps_its_last_ones_until_they_are_stale(
    make_endpoint: MakeEndpoint, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedUpstream(replies(METRICS)) as upstream:
        endpoint = make_endpoint(upstream.port)
        engines = Engines(monotonic, lambda: 0.0)
        engines.watch([endpoint], ScrapeSettings(interval=0.01))
        await until(lambda: endpoint.load.engine is not None)

        upstream.on_request = replies(answer)
        await until(lambda: len(caplog.records) > 0)
        seen_at = endpoint.load.engine_at
        await upstream.wait_requests(len(upstream.requests) + 3)

        assert endpoint.load.engine_at == seen_at
        assert [record.message for record in caplog.records] == ["engine load unknown"]
        await engines.close()
