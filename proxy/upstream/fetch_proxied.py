"""JSON over HTTP through an outbound proxy: tokens, and lists of servers.

Asked on connections of the byte path, because aiohttp's client knows no SOCKS
and would leave absolute URLs, headers and all, with a proxy.
"""

import asyncio
import ssl as tls
from collections.abc import Mapping
from urllib.parse import SplitResult, urlencode, urlsplit

import orjson

from proxy.upstream.ask import Answer, NoAnswer, converse
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import DEFAULT_PORTS
from proxy.upstream.fetch import MAX_REASON_BYTES, Fetcher, Unwelcome
from proxy.upstream.watch import Watch
from proxy.wire.tunnel import OutboundProxy


class ProxiedFetcher(Fetcher):
    """As its parent, by the way that a proxy makes."""

    def __init__(self, proxy: OutboundProxy) -> None:
        super().__init__()
        self._proxy = proxy

    async def json(
        self,
        url: str,
        *,
        within: float,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: object = None,
        form: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> object:
        """The parsed answer; raises NoAnswer, or OSError where a certificate file cannot be read."""
        parts = urlsplit(url)
        content, kind = b"", ""
        if body is not None:
            content, kind = orjson.dumps(body), "application/json"
        elif form is not None:
            content, kind = urlencode(form).encode("ascii"), "application/x-www-form-urlencoded"
        head = _head(parts, method, params or {}, {"Content-Type": kind, **(headers or {})}, len(content))
        answer = await self._converse(parts, head, content, method=method, within=within, ssl=ssl)
        if answer.status != 200:
            raise Unwelcome(answer.status, answer.body[:MAX_REASON_BYTES])
        try:
            return orjson.loads(answer.body)
        except ValueError as error:
            raise NoAnswer("not JSON") from error

    async def _converse(
        self,
        parts: SplitResult,
        head: bytes,
        content: bytes,
        *,
        method: str,
        within: float,
        ssl: tls.SSLContext | None,
    ) -> Answer:
        if parts.hostname is None:
            raise NoAnswer("the URL names no host")
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        connections = Connections(
            parts.hostname,
            parts.port or DEFAULT_PORTS[parts.scheme],
            watch=watch,
            loop=loop,
            ssl=(ssl or tls.create_default_context()) if parts.scheme == "https" else None,
            proxy=self._proxy,
        )
        try:
            return await converse(connections, head, content, method=method, within=within)
        finally:
            connections.close()
            watch.close()


def _head(
    parts: SplitResult, method: str, params: Mapping[str, str], headers: Mapping[str, str], length: int
) -> bytes:
    query = "&".join(filter(None, (parts.query, urlencode(params))))
    lines = [
        f"{method} {parts.path or '/'}{'?' + query if query else ''} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: llmproxy",
        "Accept: application/json",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items() if value),
    ]
    if method == "POST":
        lines.append(f"Content-Length: {length}")
    if any("\r" in line or "\n" in line for line in lines):
        raise NoAnswer("a header holds a line break")
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape")
