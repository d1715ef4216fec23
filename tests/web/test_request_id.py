"""The request's id: what the client sees, and where it is found again."""

import json

import pytest
from kit.client import ask
from kit.eventually import eventually
from kit.gateway import settings
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, post

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


async def access_line(gateway):
    def found():
        return [json.loads(line) for line in gateway.log_lines() if '"first_byte_ms"' in line]

    await eventually(lambda: bool(found()), "the access line")
    return found()[0]


async def test_an_id_that_the_upstream_gives_is_found_in_the_access_line(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    upstream.on_request = replies(answer(b"{}", b"x-request-id: b9801174-5134"))

    response = await ask(gateway.port, post(CHAT, BODY, b"x-request-id: mine-1"))

    line = await access_line(gateway)
    assert response.head.all(b"x-request-id") == [b"b9801174-5134"]
    assert (line["id"], line["upstream_id"]) == ("mine-1", "b9801174-5134")


async def test_an_id_of_ours_stands_there_once(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    upstream.on_request = replies(answer(b"{}"))

    response = await ask(gateway.port, post(CHAT, BODY, b"x-request-id: mine-1"))

    line = await access_line(gateway)
    assert response.head.all(b"x-request-id") == [b"mine-1"]
    assert (line["id"], line["upstream_id"]) == ("mine-1", None)


async def test_a_key_that_is_sent_as_an_id_and_echoed_is_not_logged(new_gateway, upstream):
    gateway = new_gateway(settings(upstream.port))
    upstream.on_request = replies(answer(b"{}", b"x-request-id: sk-very-secret"))
    headers = [b"x-request-id: sk-very-secret", b"Authorization: Bearer sk-very-secret"]

    await ask(gateway.port, post(CHAT, BODY, *headers))

    line = await access_line(gateway)
    assert line["upstream_id"] is None
    assert "sk-very-secret" not in gateway.output
