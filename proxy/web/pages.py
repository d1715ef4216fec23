"""The pages of our own: service info, health, readiness, metrics, models."""

import orjson
from aiohttp import web

from proxy import __version__
from proxy.errors import ModelNotFound
from proxy.upstream.pool import Pool
from proxy.web.request import exchange_of

JSON = {"Content-Type": "application/json"}


async def index(request: web.Request) -> web.Response:
    """What this is, for a person with a browser."""
    facts = {
        "service": "LLMProxy",
        "version": __version__,
        "endpoints": [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/models",
            "/health",
            "/ready",
        ],
    }
    return json_answer(facts)


async def health(request: web.Request) -> web.Response:
    """The process lives and its loop turns; says nothing about upstreams."""
    exchange = exchange_of(request)
    pools = {
        name: {"backends": len(pool.endpoints), "available": _available(pool)}
        for name, pool in exchange.runtime.pools.items()
    }
    return json_answer({"status": "ok", "version": __version__, "pools": pools})


async def ready(request: web.Request) -> web.Response:
    """Whether to send requests here: not while draining, not without any backend."""
    exchange = exchange_of(request)
    if exchange.connection.host.is_draining:
        return json_answer({"status": "draining"}, status=503)
    if not any(_available(pool) for pool in exchange.runtime.pools.values()):
        return json_answer({"status": "no backend available"}, status=503)
    return json_answer({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    return web.Response(
        body=await exchange_of(request).runtime.services.exposition(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


async def models(request: web.Request) -> web.Response:
    """The models this key may use: those configured, and those the pools report."""
    exchange = exchange_of(request)
    return json_answer({"object": "list", "data": await exchange.runtime.visible_models(exchange.credential)})


async def model(request: web.Request) -> web.Response:
    exchange = exchange_of(request)
    wanted = request.match_info["model"]
    for entry in await exchange.runtime.visible_models(exchange.credential):
        if entry["id"] == wanted:
            return json_answer(entry)
    raise ModelNotFound


def json_answer(value: object, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), headers=JSON)


def _available(pool: Pool) -> int:
    """Backends that the checks have not called down."""
    return sum(endpoint.is_up for endpoint in pool.endpoints)
