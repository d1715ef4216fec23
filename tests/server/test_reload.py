"""What a reload changes without a restart, and what it leaves alone."""

import asyncio
import json
import signal
import ssl
from collections import Counter
from contextlib import suppress
from time import monotonic

import pytest
import trustme
from kit.client import Ended, RawClient, ask
from kit.eventually import eventually
from kit.gateway import free_port, settings
from kit.receiver import Receiver
from kit.wire import get, post


async def reload(gateway, configuration=None):
    """Send SIGHUP, and wait until it was taken or refused."""
    if configuration is not None:
        gateway.write(configuration)
    said = len(gateway.log)
    gateway.signal(signal.SIGHUP)
    await eventually(lambda: '"reloaded"' in gateway.log[said:] or "refused" in gateway.log[said:], "it")
    return gateway.log[said:]


def hook(port, **more):
    reporter = {
        "name": "hook",
        "type": "webhook",
        "url": f"http://127.0.0.1:{port}/u",
        "timeout": "1s",
        **more,
    }
    return {"enabled": True, "reporters": [reporter]}


async def test_the_log_follows_in_level_and_form(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))

    await reload(gateway, settings(upstream.port, log={"level": "warning", "format": "text"}))
    said = len(gateway.output)
    gateway.write(settings(upstream.port, surprise=1))
    gateway.signal(signal.SIGHUP)
    await eventually(lambda: "surprise" in gateway.output[said:], "the refusal")

    line = gateway.output[said:].splitlines()[0]
    assert " ERROR " in line
    assert not line.startswith("{")


async def test_the_access_log_is_opened_anew_after_logrotate(new_gateway, upstream, tmp_path):
    path = tmp_path / "access.log"
    logging = {"access": {"output": "file", "file": {"path": str(path)}}}
    gateway = new_gateway(settings(upstream.port, logging=logging))
    assert (await ask(gateway.port, get(b"/v1/before"))).status == 200

    moved = path.rename(tmp_path / "access.log.1")
    await reload(gateway)
    assert (await ask(gateway.port, get(b"/v1/after"))).status == 200

    await eventually(lambda: path.exists() and "/v1/after" in path.read_text(), "the line in the new file")
    assert [json.loads(line)["path"] for line in moved.read_text().splitlines()] == ["/v1/before"]


async def test_an_access_log_that_cannot_be_opened_keeps_the_old_configuration(
    new_gateway, upstream, tmp_path
):
    gateway = new_gateway(settings(upstream.port))
    access = {"output": "file", "file": {"path": str(tmp_path / "missing" / "access.log")}}

    said = await reload(gateway, settings(upstream.port, logging={"access": access}))

    assert "missing" in said
    assert (await ask(gateway.port, get())).status == 200
    assert gateway.stop() == 0


async def test_time_outs_of_clients_follow(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    server = {"read_timeout": "300ms", "idle_timeout": "300ms", "max_header_bytes": "1KiB"}

    async with await RawClient.connect(gateway.port) as idle, await RawClient.connect(gateway.port) as slow:
        assert (await idle.ask(get())).status == 200
        await reload(gateway, settings(upstream.port, server=server))
        began = monotonic()
        await slow.send(b"GET /v1/x HTTP/1.1\r\n")

        assert (await slow.read_response()).status == 408
        assert await idle.read_to_end() == b""
        assert monotonic() - began < 3
    assert (await ask(gateway.port, get(b"/v1/x", b"X-Long: " + b"x" * 2000))).status == 431


async def test_a_changed_reporter_gets_what_was_recorded_before(new_gateway, upstream):
    """The receiver's address was wrong: the next reload brings out what waited for it."""
    gateway = new_gateway(settings(upstream.port, usage=hook(free_port())))
    for number in range(20):
        name = b"X-Request-Id: early-%d" % number
        assert (await ask(gateway.port, post(b"/v1/x", b"{}", name))).status == 200

    async with Receiver() as receiver:
        await reload(gateway, settings(upstream.port, usage=hook(receiver.port)))
        assert (await ask(gateway.port, post(b"/v1/x", b"{}", b"X-Request-Id: late"))).status == 200
        await receiver.wait_records(21, 30)
        assert gateway.stop() == 0

    assert {record["request_id"] for record in receiver.records} == {f"early-{n}" for n in range(20)} | {
        "late"
    }


async def test_changing_a_reporter_under_load_loses_no_record(new_gateway, upstream):
    async with Receiver() as one, Receiver() as other:
        gateway = new_gateway(settings(upstream.port, usage=hook(one.port)))
        served = []
        until = monotonic() + 2

        async def client_of(number):
            while monotonic() < until:
                name = f"c{number}-{len(served)}"
                response = await ask(gateway.port, post(b"/v1/x", b"{}", b"X-Request-Id: " + name.encode()))
                served.append((name, response.status))

        async def reloads():
            for number in range(6):
                await asyncio.sleep(0.3)
                receiver = one if number % 2 else other
                await reload(
                    gateway, settings(upstream.port, usage=hook(receiver.port, batch_size=number + 1))
                )

        await asyncio.gather(reloads(), *(client_of(number) for number in range(6)))
        assert await asyncio.to_thread(gateway.stop) == 0

    seen = {record["request_id"]: record["id"] for record in one.records + other.records}
    assert {status for _, status in served} == {200}
    assert {name for name, _ in served} == set(seen)
    assert len(seen) > 50


async def test_what_waits_for_a_restart_is_said_each_time(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    changed = settings(upstream.port, metrics={"path": "/figures"})

    first = await reload(gateway, changed)
    again = await reload(gateway)
    back = await reload(gateway, settings(upstream.port))

    assert "metrics.path" in first
    assert "metrics.path" in again
    assert "restart" not in back


async def test_a_full_spool_refuses_where_it_should_and_serves_again(new_gateway, upstream, tmp_path):
    port = free_port()
    spool = {"path": str(tmp_path / "spool"), "max_bytes": "1MiB", "on_full": "refuse"}
    gateway = new_gateway(settings(upstream.port, usage={**hook(port), "spool": spool}))
    answers = Counter()

    async def ask_on():
        async with await RawClient.connect(gateway.port) as client:
            while not answers[503]:
                answers[(await client.ask(post(b"/v1/" + b"x" * 500, b"{}"))).status] += 1

    await asyncio.gather(*(ask_on() for _ in range(8)))
    # What was on its way to the disk was a little less than it might have been.
    while (refused := await ask(gateway.port, post())).status == 200:
        answers[200] += 1
    assert set(answers) == {200, 503}
    assert json.loads(refused.body)["error"]["code"] == "server_is_overloaded"
    assert refused.get(b"retry-after") == b"5"
    assert (await ask(gateway.port, get(b"/health"))).status == 200

    async with Receiver(port=port) as receiver:

        async def delivered():
            return len(receiver.ids) == answers[200]

        async def served():
            return (await ask(gateway.port, post())).status == 200

        await eventually(delivered, "every record of what was served", 60)
        await eventually(served, "room again", 60)
        metrics = (await ask(gateway.port, get(b"/metrics"))).body
        assert await asyncio.to_thread(gateway.stop) == 0
    assert b'llmproxy_usage_dropped_total{sink="hook"} 0.0' in metrics
    assert len(receiver.ids) == answers[200] + 1


# --- certificates ------------------------------------------------------------


def write_certificate(folder, authority):
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")


def trusting(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(new_gateway, upstream, tmp_path):
    authority = trustme.CA()
    write_certificate(tmp_path, authority)
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    return new_gateway(settings(upstream.port, server={"tls": tls})), authority


async def answers(gateway, authority):
    with suppress(ssl.SSLError, Ended, ConnectionError):
        async with await RawClient.connect(gateway.port, tls=trusting(authority)) as client:
            return (await client.ask(get())).status == 200
    return False


async def test_a_renewed_certificate_is_shown_after_a_reload(secure, tmp_path):
    gateway, old = secure
    new = trustme.CA()
    async with await RawClient.connect(gateway.port, tls=trusting(old)) as client:
        write_certificate(tmp_path, new)
        await reload(gateway)

        assert await answers(gateway, new)
        assert not await answers(gateway, old)
        assert (await client.ask(get())).status == 200


async def test_a_broken_certificate_keeps_the_old_one_and_says_why(secure, tmp_path):
    gateway, authority = secure
    (tmp_path / "cert.pem").write_text("this is no certificate")

    said = await reload(gateway)

    assert "cert.pem" in said
    assert await answers(gateway, authority)
