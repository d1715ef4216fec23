"""Sources over HTTP and SQL: recorded answers, given by real servers."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from kit.outbound import OutboundServer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from proxy.upstream.ask import NoAnswer
from proxy.upstream.discovery.base import MAX_FOUND, Found, SourceFailed, read_entry
from proxy.upstream.discovery.consul import ConsulSource
from proxy.upstream.discovery.database import DatabaseSource
from proxy.upstream.discovery.etcd import EtcdSource
from proxy.upstream.discovery.http_list import HttpListSource, read_list
from proxy.upstream.discovery.kubernetes import KubernetesSource, read_endpoints, read_slices
from proxy.upstream.fetch import MAX_ANSWER_BYTES, Fetcher
from proxy.upstream.fetch_proxied import ProxiedFetcher
from proxy.wire.tunnel import outbound_proxy

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]

# `consul agent -dev`, one instance registered with an address of its own and one without.
CONSUL = json.loads("""[
  {"Node": {"ID": "8a1c", "Node": "n1", "Address": "10.1.10.12", "Datacenter": "dc1"},
   "Service": {"ID": "vllm-1", "Service": "vllm", "Tags": ["gpu"], "Address": "10.1.10.20", "Port": 8000,
               "Meta": {"scheme": "https"}, "Weights": {"Passing": 3, "Warning": 1}},
   "Checks": [{"Status": "passing"}]},
  {"Node": {"ID": "9b2d", "Node": "n2", "Address": "fd00::7", "Datacenter": "dc1"},
   "Service": {"ID": "vllm-2", "Service": "vllm", "Tags": ["gpu"], "Address": "", "Port": 8001,
               "Meta": null, "Weights": {"Passing": 1, "Warning": 1}},
   "Checks": [{"Status": "passing"}]}
]""")

# `kubectl get endpointslices -o json`, shortened to what matters.
SLICES = json.loads("""{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "items": [
  {"addressType": "IPv4", "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}], "endpoints": [
    {"addresses": ["10.244.1.5"], "conditions": {"ready": true, "serving": true, "terminating": false}},
    {"addresses": ["10.244.1.6"], "conditions": {"ready": false, "serving": false, "terminating": false}},
    {"addresses": ["10.244.2.7"], "conditions": {}},
    {"addresses": ["10.244.2.8"]}]},
  {"addressType": "IPv6", "ports": [{"name": "http", "port": 8000}, {"name": "metrics", "port": 9090}],
   "endpoints": [{"addresses": ["fd00:10:244::5"], "conditions": {"ready": true}}]},
  {"addressType": "IPv4", "ports": null, "endpoints": null}
]}""")

ENDPOINTS = json.loads("""{"kind": "Endpoints", "metadata": {"name": "vllm"}, "subsets": [
  {"addresses": [{"ip": "10.244.1.5", "nodeName": "n1"}, {"ip": "10.244.1.6"}],
   "notReadyAddresses": [{"ip": "10.244.1.9"}],
   "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}]}
]}""")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher()
    yield made
    await made.close()


def answering(body: object, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return handler


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("http://10.0.0.1:8000", Found("http://10.0.0.1:8000")),
        ("10.0.0.1:8000", Found("http://10.0.0.1:8000")),
        ("vllm-0.vllm", Found("http://vllm-0.vllm")),
        (
            {
                "url": "https://a/x",
                "name": "a",
                "weight": 5,
                "api_key": "sk",
                "headers": {"x-a": "1"},
                "max_in_flight": 8,
                "labels": {"zone": "b"},
            },
            Found("https://a/x", "a", 5, "sk", {"x-a": "1"}, 8),
        ),
    ],
)
def test_a_backend_is_a_url_or_an_object(entry: object, found: Found) -> None:
    assert read_entry(entry) == found


@pytest.mark.parametrize(
    "entry",
    [
        5,
        None,
        [],
        {},
        "",
        "ftp://host",
        "http://user:password@host",
        "http://host/v1 HTTP/1.1",
        "http://host:0",
        "http://host/?x",
        {"url": "http://a", "weight": -1},
        {"url": "http://a", "weight": "5"},
        {"url": "http://a", "weight": True},
        {"url": "http://a", "weight": 1001},
        {"url": "http://a", "max_in_flight": 0},
        {"url": "http://a", "name": 5},
        {"url": "http://a", "api_key": "a\r\nX: y"},
        {"url": "http://a", "headers": {"x": "a\nb"}},
        {"url": "http://a", "headers": {"x": 1}},
        {"url": "http://a", "headers": {"": "x"}},
        {"url": "http://a", "headers": {"x:y": "z"}},
        {"url": "http://a", "headers": {"Content-Length": "5"}},
        {"url": "http://a", "headers": {"transfer-encoding": "chunked"}},
        {"url": "http://a", "headers": ["x"]},
    ],
)
def test_what_is_no_backend_is_refused(entry: object) -> None:
    with pytest.raises(SourceFailed):
        read_entry(entry)


def test_secrets_are_not_in_what_is_printed() -> None:
    found = read_entry({"url": "http://a", "api_key": "sk-canary", "headers": {"x": "sk-canary"}})

    assert "canary" not in repr(found)


async def test_an_http_list_is_fetched_with_its_headers(serve: Serve, fetcher: Fetcher) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert (request.method, request.headers["X-Token"]) == ("POST", "t")
        return web.json_response({"backends": ["http://a", {"url": "http://b", "weight": 2}]})

    url = await serve(handler)
    source = HttpListSource(fetcher, url + "/list", method="POST", headers={"X-Token": "t"}, within=5.0)

    assert await source.find() == (Found("http://a"), Found("http://b", weight=2))


def test_prometheus_lists_are_understood() -> None:
    answer = [{"targets": ["10.0.0.1:8000", "10.0.0.2:8000"], "labels": {"job": "vllm"}}]

    assert read_list(answer) == (Found("http://10.0.0.1:8000"), Found("http://10.0.0.2:8000"))


@pytest.mark.parametrize(
    "answer", [None, 5, {}, {"backends": {}}, {"data": []}, ["http://a"] * (MAX_FOUND + 1)]
)
def test_what_is_no_list_is_refused(answer: object) -> None:
    with pytest.raises(SourceFailed):
        read_list(answer)


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (answering({}, status=500), "status 500"),
        (answering({}, status=204), "status 204"),
    ],
)
async def test_a_refusal_is_a_failure(serve: Serve, fetcher: Fetcher, handler: Handler, why: str) -> None:
    source = HttpListSource(fetcher, await serve(handler), method="GET", headers={}, within=5.0)

    with pytest.raises(NoAnswer, match=why):
        await source.find()


async def test_redirects_are_not_followed(serve: Serve, fetcher: Fetcher) -> None:
    elsewhere = await serve(answering(["http://evil"]))

    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPFound(elsewhere)

    source = HttpListSource(fetcher, await serve(handler), method="GET", headers={}, within=5.0)

    with pytest.raises(NoAnswer, match="status 302"):
        await source.find()


async def test_an_answer_that_never_ends_is_a_failure(serve: Serve, fetcher: Fetcher) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(MAX_ANSWER_BYTES // 65536 + 16):
            await response.write(b" " * 65536)
        return response

    source = HttpListSource(fetcher, await serve(endless), method="GET", headers={}, within=20.0)

    with pytest.raises(NoAnswer, match="too large"):
        await source.find()


async def test_silence_and_nonsense_and_nobody_are_failures(serve: Serve, fetcher: Fetcher) -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    for url, why in (
        (await serve(nonsense), "not JSON"),
        ("http://127.0.0.1:1", "Connector"),
        ("http://nowhere.invalid:1", "DNS|Connector"),
    ):
        with pytest.raises(NoAnswer, match=why):
            await HttpListSource(fetcher, url, method="GET", headers={}, within=5.0).find()


async def test_consul_is_asked_for_what_passes(serve: Serve, fetcher: Fetcher) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.path_qs == "/v1/health/service/vllm%2Fx?passing=true&tag=gpu"
        assert request.headers["X-Consul-Token"] == "t"
        return web.json_response(CONSUL)

    addr = (await serve(handler)).removeprefix("http://")
    source = ConsulSource(fetcher, addr, service="vllm/x", tag="gpu", token="t", within=5.0)

    assert await source.find() == (
        Found("https://10.1.10.20:8000", weight=3),
        Found("http://[fd00::7]:8001"),
    )


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [5],
        [{}],
        [{"Service": {}}],
        [{"Service": {"Address": "", "Port": 1}}],
        [{"Service": {"Address": "10.0.0.1", "Port": 70000}}],
        [{"Service": {"Address": "user@host", "Port": 1}}],
    ],
)
async def test_what_consul_would_not_say_is_refused(serve: Serve, fetcher: Fetcher, answer: object) -> None:
    url = await serve(answering(answer))

    with pytest.raises(SourceFailed):
        await ConsulSource(fetcher, url, service="vllm", within=5.0).find()


def kubernetes(fetcher: Fetcher, url: str, account: Path, **more: str) -> KubernetesSource:
    (account / "token").write_text("sa-token\n")
    return KubernetesSource(
        fetcher,
        namespace="llm",
        service="" if more else "vllm",
        port=8000,
        within=5.0,
        api_url=url,
        account=account,
        **more,
    )


async def test_kubernetes_is_asked_for_slices(serve: Serve, fetcher: Fetcher, tmp_path: Path) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["labelSelector"], request.headers["Authorization"]))
        return web.json_response(SLICES)

    found = await kubernetes(fetcher, await serve(handler), tmp_path).find()

    assert asked == [
        (
            "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices",
            "kubernetes.io/service-name=vllm",
            "Bearer sa-token",
        )
    ]
    assert [one.url for one in found] == [
        "http://10.244.1.5:8000",
        "http://10.244.2.7:8000",
        "http://10.244.2.8:8000",
        "http://[fd00:10:244::5]:8000",
    ]


@pytest.mark.parametrize("status", [403, 404])
async def test_where_slices_may_not_be_read_endpoints_are(
    serve: Serve, fetcher: Fetcher, tmp_path: Path, status: int
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if "endpointslices" in request.path:
            return web.json_response({"kind": "Status"}, status=status)
        assert request.path_qs == "/api/v1/namespaces/llm/endpoints/vllm"
        return web.json_response(ENDPOINTS)

    found = await kubernetes(fetcher, await serve(handler), tmp_path).find()

    assert [one.url for one in found] == ["http://10.244.1.5:8000", "http://10.244.1.6:8000"]


async def test_endpoints_can_be_picked_by_label(serve: Serve, fetcher: Fetcher, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "app in (vllm)"
        if "endpointslices" in request.path:
            return web.json_response({}, status=404)
        assert request.path == "/api/v1/namespaces/llm/endpoints"
        return web.json_response({"kind": "EndpointsList", "items": [ENDPOINTS, ENDPOINTS]})

    url = await serve(handler)
    found = await kubernetes(fetcher, url, tmp_path, label_selector="app in (vllm)").find()

    assert len(found) == 2


async def test_a_server_error_does_not_make_it_ask_for_the_older_kind(
    serve: Serve, fetcher: Fetcher, tmp_path: Path
) -> None:
    url = await serve(answering({}, status=500))

    with pytest.raises(NoAnswer, match="status 500"):
        await kubernetes(fetcher, url, tmp_path).find()


async def test_outside_a_pod_there_is_no_service_account(fetcher: Fetcher, tmp_path: Path) -> None:
    source = KubernetesSource(
        fetcher, namespace="llm", service="vllm", port=1, within=5.0, account=tmp_path / "none"
    )

    with pytest.raises(SourceFailed, match="service account"):
        await source.find()


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"items": 5}, {"items": [5]}, {"items": [{"endpoints": 5}]}]
)
def test_what_kubernetes_would_not_say_is_refused(answer: object) -> None:
    with pytest.raises(SourceFailed):
        read_slices(answer, 80)


def test_a_port_of_ones_choice_is_found_among_several() -> None:
    subset = {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 8000}, {"port": 9090}]}

    assert read_endpoints({"subsets": [subset]}, 9090) == (Found("http://10.0.0.1:9090"),)
    assert read_endpoints({"subsets": None}, 9090) == ()


def kv(**values: str) -> dict[str, object]:
    """A range answer as etcd 3.5's gateway gives it."""
    pairs = [
        {
            "key": base64.b64encode(f"/llmproxy/backends/{key}".encode()).decode(),
            "create_revision": "2",
            "value": base64.b64encode(value.encode()).decode(),
        }
        for key, value in values.items()
    ]
    return (
        {"header": {"cluster_id": "1"}, "kvs": pairs, "count": str(len(pairs))} if pairs else {"header": {}}
    )


async def test_etcd_is_asked_for_a_prefix(serve: Serve, fetcher: Fetcher) -> None:
    async def handler(request: web.Request) -> web.Response:
        asked = await request.json()
        assert request.path == "/v3/kv/range"
        assert base64.b64decode(asked["key"]) == b"/llmproxy/backends/"
        assert base64.b64decode(asked["range_end"]) == b"/llmproxy/backends0"
        return web.json_response(kv(a="http://a:8000", b='{"url": "http://b", "weight": 3}'))

    source = EtcdSource(fetcher, [await serve(handler)], prefix="/llmproxy/backends/", within=5.0)

    assert await source.find() == (Found("http://a:8000"), Found("http://b", weight=3))


async def test_etcd_without_keys_names_nobody(serve: Serve, fetcher: Fetcher) -> None:
    source = EtcdSource(fetcher, [await serve(answering(kv()))], prefix="/x/", within=5.0)

    assert await source.find() == ()


async def test_etcds_other_members_are_asked_when_one_is_down(serve: Serve, fetcher: Fetcher) -> None:
    url = await serve(answering(kv(a="http://a")))
    source = EtcdSource(fetcher, ["127.0.0.1:1", url], prefix="/x/", within=5.0)

    assert await source.find() == (Found("http://a"),)


async def test_etcd_logs_in_and_does_so_again_when_its_token_runs_out(serve: Serve, fetcher: Fetcher) -> None:
    tokens: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/v3/auth/authenticate":
            assert await request.json() == {"name": "root", "password": "pw"}
            tokens.append(f"token-{len(tokens)}")
            return web.json_response({"token": tokens[-1]})
        if request.headers.get("Authorization") != tokens[-1] or (len(tokens) == 1 and seen):
            return web.json_response({"code": 16, "message": "etcdserver: invalid auth token"}, status=401)
        seen.append(1)
        return web.json_response(kv(a="http://a"))

    seen: list[int] = []
    source = EtcdSource(
        fetcher, [await serve(handler)], prefix="/x/", username="root", password="pw", within=5.0
    )

    assert await source.find() == (Found("http://a"),)
    assert await source.find() == (Found("http://a"),)
    assert tokens == ["token-0", "token-1"]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"kvs": 5},
        {"kvs": [5]},
        {"kvs": [{}]},
        {"kvs": [{"value": "%%%"}]},
        kv(a="ftp://a"),
        kv(a='{"url": 5}'),
        kv(a="{broken"),
        {"kvs": [{"value": base64.b64encode(b"\xff").decode()}]},
    ],
)
async def test_what_etcd_would_not_say_is_refused(serve: Serve, fetcher: Fetcher, answer: object) -> None:
    source = EtcdSource(fetcher, [await serve(answering(answer))], prefix="/x/", within=5.0)

    with pytest.raises(SourceFailed):
        await source.find()


async def table(path: Path, columns: str, *rows: str) -> str:
    url = f"sqlite+aiosqlite:///{path}"
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE services ({columns})"))
        for row in rows:
            await connection.execute(text(f"INSERT INTO services VALUES ({row})"))
    await engine.dispose()
    return url


async def find_in(url: str, fields: dict[str, str]) -> list[Found]:
    source = DatabaseSource(create_async_engine(url), table_name="services", fields=fields, within=5.0)
    try:
        return list(await source.find())
    finally:
        await source.close()


async def test_enabled_rows_of_a_table_are_backends(tmp_path: Path) -> None:
    url = await table(
        tmp_path / "db",
        "name TEXT, url TEXT, weight INTEGER, status TEXT",
        "'a', 'http://a:1', 5, 'enabled'",
        "'b', 'http://b:1', 1, 'disabled'",
        "NULL, 'http://c:1', NULL, 'enabled'",
    )

    assert await find_in(url, {}) == [Found("http://a:1", "a", 5), Found("http://c:1")]


async def test_columns_may_have_other_names_or_be_missing(tmp_path: Path) -> None:
    url = await table(
        tmp_path / "db", '"base url" TEXT, active INTEGER', "'http://a:1', 1", "'http://b:1', 0"
    )

    fields = {"name": "", "weight": "", "url": "base url", "status": "active"}

    assert await find_in(url, fields) == [Found("http://a:1")]


async def test_a_database_that_cannot_answer_is_a_failure(tmp_path: Path) -> None:
    url = await table(tmp_path / "db", "other TEXT")

    with pytest.raises(SourceFailed, match="OperationalError"):
        await find_in(url, {})


# -- through an outbound proxy ---------------------------------------------------


@pytest.fixture
async def by_proxy() -> AsyncIterator[tuple[OutboundServer, ProxiedFetcher]]:
    async with OutboundServer() as server:
        yield server, ProxiedFetcher(outbound_proxy(server.url("http")))


async def test_sources_ask_the_same_through_a_proxy(
    serve: Serve, by_proxy: tuple[OutboundServer, ProxiedFetcher], tmp_path: Path
) -> None:
    """Path, query, headers and body arrive as they would directly."""
    server, fetcher = by_proxy
    asked: list[tuple[str, str, str, bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.method, request.path_qs, request.host, await request.read()))
        if request.path.startswith("/v1/health"):
            assert request.headers["X-Consul-Token"] == "t"
            return web.json_response(CONSUL)
        if request.path.startswith("/apis"):
            assert request.headers["Authorization"] == "Bearer sa-token"
            return web.json_response(SLICES)
        return web.json_response(kv(a="http://a:8000"))

    url = await serve(handler)
    host = url.removeprefix("http://")
    consul = ConsulSource(fetcher, host, service="vllm/x", tag="gpu", token="t", within=20.0)

    assert len(await consul.find()) == 2
    assert len(await kubernetes(fetcher, url, tmp_path).find()) == 4
    assert await EtcdSource(fetcher, [url], prefix="/x/", within=20.0).find() == (Found("http://a:8000"),)

    assert [method for method, *_ in asked] == ["GET", "GET", "POST"]
    assert asked[0][1] == "/v1/health/service/vllm%2Fx?passing=true&tag=gpu"
    assert asked[1][1].endswith("endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dvllm")
    assert b'"range_end"' in asked[2][3]
    assert {name for _, _, name, _ in asked} == {host}
    assert server.asked == [host] * 3


async def test_a_header_that_holds_a_line_break_is_not_sent(
    serve: Serve, by_proxy: tuple[OutboundServer, ProxiedFetcher]
) -> None:
    _, fetcher = by_proxy
    source = ConsulSource(fetcher, await serve(answering(CONSUL)), service="x", token="t\r\nA: b", within=5.0)

    with pytest.raises(NoAnswer, match="line break"):
        await source.find()
