"""A key goes in and comes out nowhere: not in logs, metrics, errors, spool, webhook, or at the upstream."""

import resource
import signal
import stat

import pytest
from kit.client import RawClient, ask, outcome
from kit.eventually import eventually
from kit.gateway import Gateway, settings
from kit.receiver import Receiver
from kit.upstream import replies
from kit.wire import answer, chunk, chunked, get, lines, post, sse_head

CANARY = "sk-canary-5d1c0ffee5d1c0ffee5d1c0ffee"
FILE_CANARY = "sk-canary-from-a-file-7a11ca7a11ca7a11ca"
UPSTREAM_CANARY = "up-canary-9e0dd0d09e0dd0d0"
HEADER_CANARY = "hd-canary-3b1ab1ab3b1ab1ab"
HOOK_CANARY = "hook-canary-e57e57e57e57"
SIGNING_CANARY = "sign-canary-c0dec0dec0de"
PROMPT = "the-prompt-is-a-secret-too"
COMPLETION = "and-so-is-the-completion"

SECRETS = [CANARY, FILE_CANARY, UPSTREAM_CANARY, HEADER_CANARY, HOOK_CANARY, SIGNING_CANARY]


@pytest.fixture
async def receiver():
    async with Receiver() as listening:
        yield listening


@pytest.fixture
def guarded(new_gateway, tmp_path, upstream, receiver, backend_port):
    """A gateway with a secret in every place that takes one; the gateway."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(f'keys:\n  - key: "{FILE_CANARY}"\n    name: filed\n')
    keys.chmod(0o600)
    reporter = {
        "name": "hook",
        "type": "webhook",
        "url": f"http://127.0.0.1:{receiver.port}/u",
        "headers": {"X-Hook": HOOK_CANARY},
        "secret": SIGNING_CANARY,
    }
    configuration = settings(
        auth={
            "enabled": True,
            "skip_paths": ["/metrics"],
            "pipeline": [
                {"name": "local", "type": "static", "keys": [{"key": CANARY, "name": "canary"}]},
                {"name": "filed", "type": "file", "path": str(keys)},
            ],
        },
        backends=[
            {
                "name": "probe",
                "url": f"http://127.0.0.1:{backend_port}",
                "api_key": UPSTREAM_CANARY,
                "headers": {"X-Backend": HEADER_CANARY},
            }
        ],
        usage={"enabled": True, "reporters": [reporter]},
        log={"level": "debug"},
        routing={"timeouts": {"first_byte": "500ms", "idle": "500ms"}, "breaker": {"enabled": False}},
    )
    return new_gateway(configuration)


def carrying(key):
    """The ways in which a client may send its key, right and wrong ones."""
    raw = key.encode()
    return [
        [b"Authorization: Bearer " + raw],
        [b"authorization: bearer " + raw],
        [b"X-API-Key: " + raw],
        [b"Authorization: Basic " + raw],
        [b"Authorization: " + raw],
        [b"Authorization: Bearer " + raw + b" x"],
        [b"Authorization: Bearer " + raw, b"X-API-Key: " + raw],
        [b"Authorization: Bearer " + raw, b"Authorization: Bearer " + raw],
        [b"Authorization: Bearer " + raw + b"\0"],
        [b"Authorization : Bearer " + raw],
        [b"Authorization Bearer " + raw],
        [b"Authorization: Bearer\r\n " + raw],
    ]


BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % PROMPT.encode()


async def use_every_way(port, upstream, key):
    """Requests that succeed, are refused, fail and break, each with the key."""
    said = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % COMPLETION.encode()
    good = sse_head() + chunked(said, b"data: [DONE]\n\n")
    answers = [
        replies(good),
        replies(answer(b'{"error":{"message":"no"}}', status=b"401 No")),
        replies(sse_head() + chunk(said), "rst"),
        replies(b"nonsense\r\n\r\n"),
        replies(b"", "fin"),
        replies(b"", "stall"),
    ]
    everything = []
    for script in answers:
        upstream.on_request = script
        for way in carrying(key)[: 12 if script is answers[0] else 2]:
            everything.append(await outcome(port, post(b"/v1/chat/completions", BODY, *way)))
    upstream.on_request = answers[0]
    bearer = b"Authorization: Bearer " + key.encode()
    for request in (
        get(b"/v1/x?api_key=" + key.encode(), bearer),
        get(b"/v1/x?" + key.encode()),
        get(b"/v1/" + key.encode() + b"/x", bearer),
        get(b"/v1/" + key.encode() + b"/x"),
        get(b"/v1/x/api_key=" + key.encode().replace(b"-", b"%2D"), bearer),
        get(b"http://127.0.0.1/v1/" + key.encode(), bearer),
        get(b"/" + key.encode()),
        lines("POST /v1/" + key + " HTTP/1.1", "Host: h", "Content-Length: x"),
        get(b"/v1/models", bearer),
        get(b"/nowhere", bearer),
        lines("GET /v1/x HTTP/2.0", "Host: h", bearer),
        lines("GET /v1/x HTTP/1.1", bearer),
        lines("GET /v1/x HTTP/1.1", "Host: h", "Content-Length: x", bearer),
        get(b"/v1/x", bearer, b"Expect: nothing"),
    ):
        everything.append(await outcome(port, request))
    async with await RawClient.connect(port) as client:
        client.write(post(b"/v1/x", BODY, bearer)[:-5])
    return [result.head.raw + result.body for result in everything if not isinstance(result, str)]


@pytest.mark.parametrize("key", [CANARY, FILE_CANARY])
async def test_no_secret_comes_out_anywhere(guarded, upstream, receiver, tmp_path, key):
    answers = await use_every_way(guarded.port, upstream, key)
    guarded.signal(signal.SIGHUP)
    metrics = await ask(guarded.port, get(b"/metrics"))
    await receiver.wait_records(5)
    guarded.stop()

    files = [path for path in guarded.folder.rglob("*") if path.is_file() and path != guarded.config_file]
    places = {
        "answers": b"".join(answers),
        "metrics": metrics.body,
        "webhook bodies": b"".join(body.split(b"\r\n\r\n", 1)[1] for body in receiver.bodies),
        **{path.name: path.read_bytes() for path in files},
    }
    assert places["stdout"].count(b"/***") >= 4  # lines of requests that had the key in their path
    for place, content in places.items():
        for secret in SECRETS:
            assert secret.encode() not in content, f"{secret} in {place}"
    for place in set(places) - {"answers"}:
        assert PROMPT.encode() not in places[place], f"the prompt in {place}"
        assert COMPLETION.encode() not in places[place], f"the completion in {place}"


@pytest.fixture
def cores_allowed():
    """Whoever starts the gateway would get core files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("core files are forbidden here")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_a_crash_leaves_no_core_with_keys_in_it(cores_allowed, guarded):
    soft, _ = resource.prlimit(guarded.pid, resource.RLIMIT_CORE)

    assert soft == 0


async def test_the_clients_key_does_not_reach_the_upstream(guarded, upstream):
    for way in carrying(CANARY):
        await outcome(guarded.port, post(b"/v1/x", BODY, *way))

    assert upstream.requests
    for request in upstream.requests:
        assert CANARY.encode() not in request.raw
        assert request.head.all(b"authorization") == [b"Bearer " + UPSTREAM_CANARY.encode()]
        assert request.head.all(b"x-backend") == [HEADER_CANARY.encode()]


async def test_without_a_key_of_its_own_the_upstream_gets_none(gateways, upstream):
    auth = {"enabled": True, "pipeline": [{"type": "static", "keys": [{"key": CANARY}]}]}
    gateway = gateways.get(settings(gateways.backend_port, auth=auth))

    both = [b"X-Api-Key: " + CANARY.encode(), b"AUTHORIZATION: Bearer " + CANARY.encode()]
    assert (await ask(gateway.port, post(b"/v1/x", BODY, *both))).status == 200

    assert CANARY.encode() not in upstream.requests[0].raw


async def test_the_webhook_is_signed_and_gets_its_header(guarded, upstream, receiver):
    await ask(guarded.port, post(b"/v1/x", BODY, b"X-API-Key: " + CANARY.encode()))
    await receiver.wait_records(1)

    head = receiver.requests[0].head
    assert head.get(b"x-hook") == HOOK_CANARY.encode()
    assert any(b"signature" in name for name in head.names())


async def test_the_spool_is_for_nobody_else_to_read(guarded, upstream):
    await ask(guarded.port, post(b"/v1/x", BODY, b"X-API-Key: " + CANARY.encode()))
    await eventually(lambda: bool(list(guarded.folder.rglob("*.db"))), "a spool")

    for path in guarded.folder.rglob("*.db*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_key_file_that_others_may_read_is_not_accepted_silently(tmp_path, mode):
    keys = tmp_path / "keys.yaml"
    keys.write_text(f'keys:\n  - key: "{FILE_CANARY}"\n')
    keys.chmod(mode)
    auth = {"enabled": True, "pipeline": [{"name": "filed", "type": "file", "path": str(keys)}]}
    gateway = Gateway(tmp_path / "lax", settings(1, auth=auth)).start(wait=False)
    try:
        if gateway.died_early():
            assert gateway.process.returncode != 0
        assert "600" in gateway.output
        assert FILE_CANARY not in gateway.output
        assert "Traceback" not in gateway.output
    finally:
        gateway.kill()


def test_check_shows_no_secret(tmp_path):
    auth = {"pipeline": [{"type": "static", "keys": [{"key": CANARY, "sha256": "no digest"}]}]}
    backends = [{"url": "not a url", "api_key": UPSTREAM_CANARY, "headers": {"X": 7}}]
    gateway = Gateway(tmp_path / "checked", settings(auth=auth, backends=backends))

    said = gateway.check()

    assert said.returncode == 2
    for secret in SECRETS:
        assert secret not in said.stdout + said.stderr


async def test_a_key_is_compared_by_its_digest(guarded, upstream):
    """Nearly right is wrong, whatever the difference."""
    raw = CANARY.encode()
    for near in (raw[:-1], raw + b"x", raw.upper(), raw + b"\xff", b" " * 9 + raw + b"!", raw * 2, b"", b"*"):
        response = await ask(guarded.port, post(b"/v1/x", BODY, b"X-API-Key: " + near))
        assert response.status == 401
    assert upstream.requests == []
