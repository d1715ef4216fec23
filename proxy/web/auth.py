"""Who is asking: a key from the headers, looked up by its digest, or a refusal."""

from collections.abc import Awaitable

from aiohttp import web

from proxy.runtime.keys import Keys
from proxy.stores.pipeline import Ask
from proxy.web.errors import Handler
from proxy.web.exchange import Exchange
from proxy.web.forward import forward
from proxy.web.request import Request
from proxy.web.run import in_task


def auth(request: Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    exchange = request.exchange
    keys = exchange.runtime.keys
    if keys is None or _needs_no_key(request, exchange):
        return handler(request)
    found = keys.credential_nowait(exchange.head, exchange.client_ip)
    if isinstance(found, Ask):
        return _ask(request, handler, keys)
    exchange.credential = found
    return handler(request)


async def _ask(request: Request, handler: Handler, keys: Keys) -> web.StreamResponse:
    """Wait for a store that has to be asked."""
    await in_task()
    exchange = request.exchange
    exchange.credential = await keys.credential(exchange.head, exchange.client_ip)
    return await handler(request)


def _needs_no_key(request: Request, exchange: Exchange) -> bool:
    """Our own open pages, and paths that the configuration leaves open; never what else is forwarded."""
    if exchange.connection.is_routed and request.match_info.handler is not forward:
        return exchange.runtime.is_open_page(exchange.head.target)
    return exchange.facts.skips_key
