"""A form posted through an outbound proxy, for the tokens of a server that is reached through one.

Sent on a connection of the byte path, because aiohttp's client knows no SOCKS
and would leave absolute URLs, headers and all, with a proxy.
"""

import asyncio
import ssl as tls
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import orjson

from proxy.upstream.ask import NoAnswer, converse
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import DEFAULT_PORTS
from proxy.upstream.fetch import MAX_REASON_BYTES, Unwelcome
from proxy.upstream.watch import Watch
from proxy.wire.tunnel import OutboundProxy


async def post_form(url: str, form: Mapping[str, str], *, proxy: OutboundProxy, within: float) -> object:
    """The parsed answer; raises NoAnswer, or OSError where a certificate file cannot be read."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # checked with the configuration
    loop = asyncio.get_running_loop()
    watch = Watch(loop)
    connections = Connections(
        parts.hostname,
        parts.port or DEFAULT_PORTS[parts.scheme],
        watch=watch,
        loop=loop,
        ssl=tls.create_default_context() if parts.scheme == "https" else None,
        proxy=proxy,
    )
    body = urlencode(form).encode("ascii")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        answer = await converse(
            connections, _head(parts.netloc, target, len(body)), body, method="POST", within=within
        )
    finally:
        connections.close()
        watch.close()
    if answer.status != 200:
        raise Unwelcome(answer.status, answer.body[:MAX_REASON_BYTES])
    try:
        return orjson.loads(answer.body)
    except ValueError as error:
        raise NoAnswer("not JSON") from error


def _head(authority: str, target: str, length: int) -> bytes:
    lines = (
        f"POST {target} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: llmproxy",
        "Accept: application/json",
        "Connection: close",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")
