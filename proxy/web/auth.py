"""Who is asking: a key from the headers, looked up by its digest, or a refusal."""

from aiohttp import web

from proxy.web.errors import Handler
from proxy.web.exchange import EXCHANGE, Exchange
from proxy.web.forward import forward


@web.middleware
async def auth(request: web.Request, handler: Handler) -> web.StreamResponse:
    exchange = request[EXCHANGE]
    keys = exchange.runtime.keys
    if keys is not None and not _needs_no_key(request, exchange):
        exchange.credential = await keys.credential(exchange.head, exchange.client_ip)
    return await handler(request)


def _needs_no_key(request: web.Request, exchange: Exchange) -> bool:
    """Our own open pages, and paths that the configuration leaves open; never what else is forwarded."""
    runtime, target = exchange.runtime, exchange.head.target
    if exchange.connection.is_routed and request.match_info.handler is not forward:
        return runtime.is_open_page(target)
    return runtime.skips_key(target)
