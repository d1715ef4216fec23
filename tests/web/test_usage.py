"""What the usage record says of a request, through a gateway."""

import pytest
from kit.client import ask
from kit.gateway import settings
from kit.receiver import Receiver
from kit.upstream import ScriptedUpstream
from kit.wire import post


@pytest.fixture
async def upstream():
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def receiver():
    async with Receiver() as receiver:
        yield receiver


def metered(upstream, receiver, **changes):
    hook = {"name": "hook", "type": "webhook", "url": f"http://127.0.0.1:{receiver.port}/usage"}
    return settings(upstream.port, usage={"enabled": True, "reporters": [hook]}, **changes)


CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"user":"not a session"}'


@pytest.mark.parametrize(
    ("lines", "session"),
    [
        ([b"X-Session-Id: ses_1"], "ses_1"),
        ([b"x-session-id: ses_2", b"x-session-affinity: ses_1"], "ses_1"),
        ([b"x-parent-session-id: ses_0"], None),
        ([b"x-session-id: caf\xc3\xa9 \xff"], "café \N{REPLACEMENT CHARACTER}"),
        ([b"x-session-id: " + b"s" * 1000], "s" * 256),
        ([], None),
    ],
)
async def test_a_record_names_the_session_as_the_client_does(new_gateway, upstream, receiver, lines, session):
    gateway = new_gateway(metered(upstream, receiver))

    await ask(gateway.port, post(CHAT, BODY, *lines))

    assert [record["session"] for record in await receiver.wait_records(1)] == [session]


@pytest.mark.parametrize(
    ("affinity", "session"), [({"headers": ["x-chat"]}, "ours"), ({"enabled": False}, "usual")]
)
async def test_a_session_is_named_by_the_headers_of_the_configuration(
    new_gateway, upstream, receiver, affinity, session
):
    gateway = new_gateway(metered(upstream, receiver, routing={"affinity": affinity}))

    await ask(gateway.port, post(CHAT, BODY, b"x-chat: ours", b"x-session-id: usual"))

    assert [record["session"] for record in await receiver.wait_records(1)] == [session]
