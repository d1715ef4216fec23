"""Cross-origin answers for clients in browsers (the Fetch standard's CORS protocol)."""

from collections.abc import Awaitable

from aiohttp import web

from proxy.config.schema import Cors
from proxy.web.errors import Handler
from proxy.web.request import Request


def cors(request: Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """Answer preflights, and say on every answer which page may read it."""
    exchange = request.exchange
    origin = exchange.facts.origin
    if origin is None:
        return handler(request)
    settings = exchange.runtime.config.server.cors
    allowed = _allowed_origin(settings, origin)
    if allowed is None or not settings.enabled:
        return handler(request)
    return _answer(request, handler, settings, allowed)


async def _answer(request: Request, handler: Handler, settings: Cors, allowed: str) -> web.StreamResponse:
    exchange = request.exchange
    headers = _headers(settings, allowed)
    if request.method == "OPTIONS" and exchange.head.get(b"access-control-request-method") is not None:
        return web.Response(
            status=204,
            headers={**headers, **_preflight(settings, exchange.head.get(b"access-control-request-headers"))},
        )
    exchange.added_lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode(
        "latin-1"
    )
    exchange.replaced_names = frozenset(name.lower().encode() for name in headers if name != "Vary")
    response = await handler(request)
    if response.prepared:
        return response
    response.headers.update(headers)
    return response


def _allowed_origin(settings: Cors, origin: str) -> str | None:
    if "*" in settings.allowed_origins and not settings.allow_credentials:
        return "*"
    return origin if origin in settings.allowed_origins else None


def _headers(settings: Cors, origin: str) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": origin}
    if origin != "*":
        headers["Vary"] = "Origin"
    if settings.allow_credentials:
        headers["Access-Control-Allow-Credentials"] = "true"
    if settings.expose_headers:
        headers["Access-Control-Expose-Headers"] = ", ".join(settings.expose_headers)
    return headers


def _preflight(settings: Cors, asked: bytes | None) -> dict[str, str]:
    headers = {
        "Access-Control-Allow-Methods": ", ".join(settings.allowed_methods),
        "Access-Control-Max-Age": str(int(settings.max_age)),
    }
    if "*" in settings.allowed_headers:
        # The wildcard does not cover Authorization, so what was asked for is allowed by name.
        headers["Access-Control-Allow-Headers"] = asked.decode("latin-1") if asked else "*"
    else:
        headers["Access-Control-Allow-Headers"] = ", ".join(settings.allowed_headers)
    return headers
