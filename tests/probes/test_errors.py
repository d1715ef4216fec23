"""Every error of ours is OpenAI's error object, repeats nothing, and tempts nobody to retry in vain."""

import json
import re

import pytest
from kit.client import RawClient, ask
from kit.gateway import free_port, settings
from kit.upstream import replies
from kit.wire import chunked, get, lines, post

# Stands wherever a request has room for it; no answer and no log may repeat it.
ECHO = b"ECHO7f3a9c"

KEY = "sk-probe-errors-0123456789"
ANY_MODEL = "sk-probe-any-model-0123456789"
DISABLED = "sk-probe-disabled-0123456789"

# OpenCode takes a 4xx with one of these in it for something to retry.
TEMPTING = re.compile(rb"429|500|502|503|504|524|rate limit|server error|overloaded", re.IGNORECASE)

CHAT = b'{"model":"' + ECHO + b'","messages":[]}'


def configuration(gateways, **changes):
    auth = {
        "enabled": True,
        "skip_paths": ["/metrics"],
        "pipeline": [
            {
                "name": "local",
                "type": "static",
                "keys": [
                    {"key": KEY, "name": "probe", "allowed_models": ["known*"]},
                    {"key": ANY_MODEL, "name": "any"},
                    {"key": DISABLED, "name": "off", "status": "disabled"},
                    {
                        "key": KEY + "-2",
                        "name": "busy",
                        "limits": {"requests_per_minute": 1, "burst_size": 1},
                    },
                ],
            }
        ],
    }
    routing = {
        "timeouts": {"connect": "1s", "first_byte": "500ms", "idle": "500ms"},
        "breaker": {"enabled": False},
    }
    server = {"max_body_size": "64KiB", "read_timeout": "400ms", "idle_timeout": "2s"}
    limits = {"enabled": True}
    return settings(
        gateways.backend_port, auth=auth, routing=routing, server=server, rate_limit=limits, **changes
    )


@pytest.fixture
def strict(gateways, upstream):
    """A gateway with everything that can refuse; the gateway."""
    return gateways.get(configuration(gateways))


def bearer(key=KEY):
    return b"Authorization: Bearer " + (key.encode() if isinstance(key, str) else key)


PARSED_BADLY = {
    "request line": (b"GET /v1/" + ECHO + b" HTTP/1.1 x\r\nHost: h\r\n\r\n", {400}),
    "no version": (b"GET /v1/" + ECHO + b"\r\nHost: h\r\n\r\n", {400}),
    "version": (b"GET /v1/" + ECHO + b" HTTP/2.0\r\nHost: h\r\n\r\n", {400, 505}),
    "old version": (b"GET /v1/" + ECHO + b" HTTP/0.9\r\nHost: h\r\n\r\n", {400, 505}),
    "method": (b"G(T /v1/" + ECHO + b" HTTP/1.1\r\nHost: h\r\n\r\n", {400}),
    "connect": (b"CONNECT " + ECHO + b":80 HTTP/1.1\r\nHost: h\r\n\r\n", {400, 404, 405, 501}),
    "nul in a header": (get(b"/v1/x", bearer(ECHO + b"\0")), {400}),
    "escape in a header": (get(b"/v1/x", b"X: " + ECHO + b"\x1b[31m"), {400}),
    "name of a header": (get(b"/v1/x", b"X " + ECHO + b": y"), {400}),
    "no colon": (get(b"/v1/x", ECHO), {400}),
    "folded": (get(b"/v1/x", b"X: y\r\n " + ECHO), {400}),
    "bare lf": (get(b"/v1/x", b"X: y\n" + ECHO + b": z"), {400}),
    "no host": (b"GET /v1/" + ECHO + b" HTTP/1.1\r\n\r\n", {400}),
    "two hosts": (get(b"/v1/x", b"Host: " + ECHO), {400}),
    "host": (b"GET /v1/x HTTP/1.1\r\nHost: <" + ECHO + b">\r\n\r\n", {400}),
    "length": (lines(b"POST /v1/x HTTP/1.1", b"Host: h", b"Content-Length: " + ECHO), {400}),
    "two lengths": (get(b"/v1/x", b"Content-Length: 502", b"Content-Length: 503"), {400}),
    "coding": (lines(b"POST /v1/x HTTP/1.1", b"Host: h", b"Transfer-Encoding: " + ECHO), {400, 501}),
    "length and coding": (get(b"/v1/x", b"Content-Length: 5", b"Transfer-Encoding: chunked"), {400}),
    "chunk size": (
        lines(b"POST /v1/x HTTP/1.1", b"Host: h", bearer(), b"Transfer-Encoding: chunked") + ECHO + b"\r\n",
        {400},
    ),
    "long target": (b"GET /v1/" + ECHO + b"5" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", {414}),
    "long header": (get(b"/v1/x", b"X: " + ECHO * 20_000), {431}),
    "many headers": (get(b"/v1/x", *(b"X-%d: " % n + ECHO for n in range(5000))), {431}),
    "expectation": (get(b"/v1/x", b"Expect: " + ECHO), {417}),
    "binary": (bytes(range(256)) + b"\r\n\r\n", {400}),
}

REFUSED = {
    "no key": (post(b"/v1/chat/completions?q=" + ECHO, CHAT), {401}),
    "unknown key": (post(b"/v1/x", CHAT, bearer(ECHO)), {401}),
    "unknown key in another header": (post(b"/v1/x", CHAT, b"X-API-Key: " + ECHO), {401}),
    "key that is not ascii": (post(b"/v1/x", CHAT, bearer(b"\xff\xfe" + ECHO)), {401}),
    "wrong scheme": (post(b"/v1/x", CHAT, b"Authorization: Basic " + ECHO), {401}),
    "disabled key": (post(b"/v1/x", CHAT, bearer(DISABLED)), {403}),
    "path": (post(b"/" + ECHO, CHAT, bearer()), {404}),
    "path beside the prefix": (get(b"/v2/" + ECHO, bearer()), {404}),
    "path outside by dots": (get(b"/x/../" + ECHO, bearer()), {404}),
    "model": (post(b"/v1/chat/completions", CHAT, bearer()), {404}),
    "model by name": (get(b"/v1/models/" + ECHO, bearer()), {404}),
    "method of our own page": (post(b"/health", CHAT, bearer()), {404, 405}),
    "announced too large": (
        lines(b"POST /v1/x HTTP/1.1", b"Host: h", bearer(), b"Content-Length: 50000000"),
        {413},
    ),
    "too large": (post(b"/v1/x", ECHO * 10_000, bearer()), {413}),
    "too large in chunks": (
        lines(b"POST /v1/x HTTP/1.1", b"Host: h", bearer(), b"Transfer-Encoding: chunked")
        + (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 10,
        {413},
    ),
    "half a head": (b"POST /v1/" + ECHO + b" HTTP/1.1\r\nHost", {408}),
    "half a body": (post(b"/v1/x", ECHO * 9, bearer())[:-5], {408}),
}


def assert_openai_error(response, statuses):
    assert response.status in statuses
    assert response.is_complete
    assert response.get(b"content-type") in (b"application/json", b"application/json; charset=utf-8")
    assert response.get(b"x-request-id")
    assert response.get(b"server") is None
    error = json.loads(response.body)["error"]
    assert set(json.loads(response.body)) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    assert ECHO not in response.head.raw + response.body
    assert b"sk-" not in response.body
    if 400 <= response.status < 500 and response.status != 429:
        assert not TEMPTING.search(response.body), response.body


@pytest.mark.parametrize(("raw", "statuses"), PARSED_BADLY.values(), ids=PARSED_BADLY)
async def test_what_cannot_be_read_is_answered_in_openais_way(strict, upstream, raw, statuses):
    async with await RawClient.connect(strict.port) as client:
        client.write(raw)
        response = await client.read_response()
        assert_openai_error(response, statuses)
        assert response.get(b"connection") == b"close"
        assert await client.wait_end(3) in ("fin", "rst")
    assert upstream.requests == []


@pytest.mark.parametrize(("raw", "statuses"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_answered_in_openais_way(strict, upstream, raw, statuses):
    async with await RawClient.connect(strict.port) as client:
        client.write(raw)
        assert_openai_error(await client.read_response(), statuses)
    assert not [request for request in upstream.requests if ECHO in request.raw]


FAILED = {
    "silent": (replies(b"", "stall"), {504}),
    "closed": (replies(b"", "fin"), {502}),
    "reset": (replies(b"", "rst"), {502}),
    "nonsense": (replies(ECHO + b"\r\n\r\n"), {502}),
    "bad header": (replies(b"HTTP/1.1 200 OK\r\n" + ECHO + b"\r\n\r\n"), {502}),
    "bad length": (replies(b"HTTP/1.1 200 OK\r\nContent-Length: " + ECHO + b"\r\n\r\n"), {502}),
    "two answers in one": (
        replies(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + ECHO),
        {502},
    ),
}


@pytest.mark.parametrize(("script", "statuses"), FAILED.values(), ids=FAILED)
async def test_an_upstream_that_fails_is_reported_in_openais_way(strict, upstream, script, statuses):
    upstream.on_request = script

    response = await ask(strict.port, post(b"/v1/chat/completions", b'{"model":"known-1"}', bearer()))

    assert_openai_error(response, statuses)


async def test_an_upstream_that_is_not_there_is_reported_in_openais_way(gateways):
    gateway = gateways.get(settings(free_port()))

    response = await ask(gateway.port, post())

    assert_openai_error(response, {502})


async def test_a_limit_is_reported_in_openais_way(strict, upstream):
    request = post(b"/v1/x", b"{}", bearer(KEY + "-2"))
    await ask(strict.port, request)

    response = await ask(strict.port, request)

    assert_openai_error(response, {429})
    assert int(response.get(b"retry-after")) >= 1
    assert int(response.get(b"retry-after-ms")) >= 1
    assert json.loads(response.body)["error"]["code"] == "rate_limit_exceeded"


UPLOADS = {
    "too large": (b"/v1/x", bearer(ANY_MODEL), 413),
    "no key": (b"/v1/x", b"X-Nothing: 1", 401),
    "unknown path": (b"/nowhere", bearer(ANY_MODEL), 404),
}


@pytest.mark.parametrize(("target", "header", "status"), UPLOADS.values(), ids=UPLOADS)
@pytest.mark.parametrize("size", [60_000, 1_000_000, 16_000_000])
async def test_a_refusal_during_an_upload_arrives(strict, target, header, status, size):
    """Closing with unread input would reset the connection and take the answer with it."""
    expected = status if size > 64 * 1024 or status != 413 else 200
    for _ in range(3):
        async with await RawClient.connect(strict.port) as client:
            client.write(post(target, b"x" * size, header))
            response = await client.read_response(b"POST")
            assert (response.status, response.is_complete) == (expected, True)


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_largest_body_is_exactly_as_large_as_configured(strict, upstream, size, status, is_chunked):
    request = post(b"/v1/x", b"x" * size, bearer(ANY_MODEL))
    if is_chunked:
        head = lines("POST /v1/x HTTP/1.1", "Host: h", bearer(ANY_MODEL), "Transfer-Encoding: chunked")
        request = head + chunked(b"x" * 1000, b"x" * (size - 1000))

    assert (await ask(strict.port, request)).status == status


async def test_a_head_request_gets_the_error_without_its_body(strict):
    async with await RawClient.connect(strict.port) as client:
        response = await client.ask(lines("HEAD /v1/x HTTP/1.1", "Host: h"))
        assert response.status == 401
        assert (await client.ask(get(b"/v1/x"))).status == 401
        assert client.unread == b""


@pytest.mark.parametrize(
    "rest", [b" /v1/x HTTP/1.2\r\nHost: h\r\n\r\n", b" /v1/x HTTP/1.1\r\nX\r\n\r\n", b" /v1/"]
)
async def test_a_head_request_that_cannot_be_read_gets_no_body_either(strict, rest):
    async with await RawClient.connect(strict.port) as client:
        client.write(b"HEAD" + rest)
        response = await client.read_response(b"HEAD")
        await client.wait_end(3)

    assert response.status in (400, 408, 505)
    assert client.unread == b""


async def test_a_refused_request_leaves_the_connection_usable(strict, upstream):
    """Its body was read or thrown away; the next request is not taken out of its middle."""
    async with await RawClient.connect(strict.port) as client:
        for _ in range(3):
            response = await client.ask(post(b"/v1/x", get(b"/v1/smuggled"), bearer("wrong")))
            assert response.status == 401
            if response.get(b"connection") == b"close":
                break
        else:
            assert (await client.ask(get(b"/v1/x", bearer()))).status == 200
    assert b"/v1/smuggled" not in [request.target for request in upstream.requests]


async def test_codes_and_types_are_openais(strict):
    cases = [
        (post(b"/v1/x", CHAT), "invalid_request_error", "invalid_api_key"),
        (post(b"/v1/chat/completions", CHAT, bearer()), "invalid_request_error", "model_not_found"),
        (get(b"/nowhere", bearer()), "invalid_request_error", None),
    ]
    for request, kind, code in cases:
        error = json.loads((await ask(strict.port, request)).body)["error"]
        assert error["type"] == kind
        if code:
            assert error["code"] == code


async def test_a_request_id_of_the_client_comes_back_if_it_is_harmless(strict):
    good = await ask(strict.port, get(b"/nowhere", b"X-Request-Id: my-id-1"))
    odd = await ask(strict.port, get(b"/nowhere", b"X-Request-Id: <" + ECHO + b">\xff"))

    assert good.get(b"x-request-id") == b"my-id-1"
    assert_openai_error(odd, {401, 404})


async def test_nothing_of_an_attack_reaches_the_log_unescaped(gateways, new_gateway, upstream):
    gateway = new_gateway(configuration(gateways))
    hostile = [raw for raw, _ in (*PARSED_BADLY.values(), *REFUSED.values())]
    hostile += [
        get(b"/v1/%0a%0dINJECTED", bearer()),
        get(b"/v1/\xff\x80\xc2\x9b31m?key=" + ECHO, bearer()),
        get(b"/" + "\u2028\u202e".encode(), bearer()),
        get(b"/v1/x", bearer(), b"User-Agent: \xc2\x9b31m\xff\t\x80"),
        get(b"/v1/x", bearer(), b"X-Request-Id: a b\xff"),
        get(b"/v1/x?api_key=" + ECHO, bearer()),
    ]
    for raw in hostile:
        async with await RawClient.connect(gateway.port) as client:
            client.write(raw)
            await client.read_response()
    gateway.stop()

    raw = gateway.output.encode()
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", raw)
    assert "\x9b" not in gateway.output
    assert KEY.encode() not in raw
    assert b"api_key=" not in raw
    said_at_start = [line for line in gateway.log_lines() if not line.startswith("{")]
    assert all(": note: " in line for line in said_at_start)
    for line in gateway.log_lines()[len(said_at_start) :]:
        json.loads(line)
