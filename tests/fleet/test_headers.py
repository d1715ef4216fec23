"""What clients are told about limits is true to the request, wherever levels are kept."""

import asyncio
import json
from math import ceil

import pytest
from kit.client import ask
from kit.gateway import settings
from kit.servers import REDIS, RedisServer
from kit.upstream import ScriptedUpstream, replies
from kit.wire import answer, post

KEY = "sk-headers-0123456789"
CHAT = post(b"/v1/chat/completions", b'{"model":"m"}', b"Authorization: Bearer " + KEY.encode())
USED = {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}
# One request flows back in 6000 s, so that no machine is too slow for exact numbers.
LIMITS = {"requests_per_minute": 0.01, "burst_size": 5, "tokens_per_minute": 1_000_000, "max_concurrent": 5}


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.skipif(REDIS is None, reason="-"))])
def limited(request):
    """The settings for limits, kept here or there."""
    if request.param == "memory":
        yield {"rate_limit": {"enabled": True, "per_key": LIMITS}}
        return
    server = RedisServer().begin()
    cache = {"name": "default", "addr": f"unix:{server.socket}"}
    limits = {"enabled": True, "storage": "redis", "on_store_failure": "fail_closed", "per_key": LIMITS}
    yield {"rate_limit": limits, "storage": {"caches": [cache]}}
    server.remove()


async def test_of_requests_that_come_together_each_sees_its_own_count(new_gateway, limited):
    keys = {"type": "static", "keys": [{"key": KEY}]}
    body = answer(json.dumps({"object": "chat.completion", "usage": USED}).encode())
    async with ScriptedUpstream(replies(body)) as upstream:
        gateway = new_gateway(settings(upstream.port, auth={"enabled": True, "pipeline": [keys]}, **limited))

        passed = await asyncio.gather(*(ask(gateway.port, CHAT) for _ in range(5)))
        refused = [await ask(gateway.port, CHAT) for _ in range(2)]

    assert [one.status for one in passed] == [200] * 5
    assert sorted(one.get(b"x-ratelimit-remaining-requests") for one in passed) == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    for one in [*passed, *refused]:
        assert one.get(b"x-ratelimit-limit-requests") == b"5"
        left = int(one.get(b"x-ratelimit-remaining-requests"))
        assert f'"key-rpm";r={left};t=' in one.get(b"ratelimit").decode()
        assert b'"key-rpm";q=5;w=' in one.get(b"ratelimit-policy")
    for one in refused:
        seconds, milliseconds = int(one.get(b"retry-after")), int(one.get(b"retry-after-ms"))
        assert (one.status, one.get(b"x-ratelimit-remaining-requests")) == (429, b"0")
        assert seconds == ceil(milliseconds / 1000)
        assert 5800 < seconds <= 6000
    assert len(upstream.requests) == 5
