"""Where a request goes: its body is read once, its model looked up, its route set.

The body is searched for `model` and `stream` without being parsed; it is
rewritten only where the upstream knows the model by another name, and then only
in those bytes.
"""

from typing import cast

from aiohttp import web

from proxy.balancers import Hint
from proxy.balancers.affinity_key import BODY_KEYS, session_in_body
from proxy.errors import BadRequest, ModelNotFound, NotFound
from proxy.runtime import Route
from proxy.web.downstream import DownstreamConnection
from proxy.web.errors import Handler
from proxy.web.exchange import EXCHANGE, NO_HINT, Exchange
from proxy.web.forward import forward
from proxy.wire.json_bytes import Peek, find_top_level, first_model, peek


@web.middleware
async def route(request: web.Request, handler: Handler) -> web.StreamResponse:
    connection = cast(DownstreamConnection, request.protocol)
    if connection.is_routed and request.match_info.handler is not forward:
        return await handler(request)
    exchange = request[EXCHANGE]
    runtime = exchange.runtime
    if not runtime.forwards(exchange.head.target):
        raise NotFound("There is nothing at this path.")
    if exchange.head.has_body:
        exchange.body = await connection.read_body(runtime.config.server.max_body_size)
    seen = _look(exchange)
    _take_in(exchange, seen)
    exchange.route = runtime.known_route(seen.model) or await runtime.route_for(seen.model)
    if exchange.route is None:
        raise ModelNotFound
    exchange.hint = _hint(exchange, exchange.route)
    return await handler(request)


def _look(exchange: Exchange) -> Peek:
    """Find the model; where nothing hangs on it, its usual place is enough."""
    credential = exchange.credential
    if not exchange.runtime.models_matter and (credential is None or not credential.allowed_models):
        seen = first_model(exchange.body)
        if seen is not None:
            return seen
    return peek(exchange.body)


def _hint(exchange: Exchange, found: Route) -> Hint:
    """The request's session, where that decides who gets it."""
    sessions = found.live.sessions
    if sessions is None or len(found.pool.endpoints) < 2:
        return NO_HINT
    hint = sessions.find(exchange.head.lines, exchange.model)
    if hint is not None:
        return hint
    return session_in_body(find_top_level(exchange.body, BODY_KEYS), exchange.body, exchange.model)


def _take_in(exchange: Exchange, seen: Peek) -> None:
    if seen.ambiguous:
        raise BadRequest("The field is given more than once.", param="model")
    exchange.model, exchange.model_span = seen.model, seen.model_span
    _check_allowed(exchange)


def _check_allowed(exchange: Exchange) -> None:
    """A key for some models only must name one of them: an upstream's default is not its choice."""
    credential = exchange.credential
    if credential is None or not credential.allowed_models:
        return
    if exchange.model is None:
        if exchange.body:
            raise BadRequest("This key needs the model to be named.", param="model")
        return
    if not credential.may_use(exchange.model):
        raise ModelNotFound
