"""Where a request goes: its body is read once, its model looked up, its route set.

The body is searched for `model` and `stream` without being parsed; it is
rewritten only where the upstream knows the model by another name, and then only
in those bytes.
"""

from collections.abc import Awaitable

from aiohttp import web

from proxy.access import Credential
from proxy.balancers import Hint
from proxy.balancers.affinity_key import BODY_KEYS, SessionHeaders, session_in_body
from proxy.errors import BadRequest, ModelNotFound, NotFound
from proxy.runtime import Route
from proxy.web.errors import Handler
from proxy.web.exchange import NO_HINT, Exchange
from proxy.web.forward import forward
from proxy.web.request import Request
from proxy.wire.json_bytes import Peek, find_top_level, first_model, peek


def route(request: Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    connection, exchange = request.connection, request.exchange
    if connection.is_routed and request.match_info.handler is not forward:
        return handler(request)
    if not exchange.facts.is_forwarded:
        raise NotFound("There is nothing at this path.")
    body = connection.body_nowait(exchange.runtime.max_body_size)
    if body is None:
        return _read(request, handler)
    exchange.body = body
    if _find(exchange):
        return handler(request)
    return _ask(request, handler)


async def _read(request: Request, handler: Handler) -> web.StreamResponse:
    """Wait for the rest of the body."""
    exchange = request.exchange
    exchange.body = await request.connection.read_body(exchange.runtime.max_body_size)
    return await (handler(request) if _find(exchange) else _ask(request, handler))


async def _ask(request: Request, handler: Handler) -> web.StreamResponse:
    """Ask the servers who has a model that is not configured."""
    exchange = request.exchange
    found = await exchange.runtime.route_for(exchange.model)
    if found is None:
        raise ModelNotFound
    _take(exchange, found)
    return await handler(request)


def _find(exchange: Exchange) -> bool:
    """Set the route if that can be done without asking anybody."""
    seen = _look(exchange)
    if seen.ambiguous:
        raise BadRequest("The field is given more than once.", param="model")
    exchange.model, exchange.model_span = seen.model, seen.model_span
    if exchange.credential is not None and exchange.credential.allowed_models:
        _check_allowed(exchange, exchange.credential)
    found = exchange.runtime.known_route(seen.model)
    if found is None:
        return False
    _take(exchange, found)
    return True


def _take(exchange: Exchange, found: Route) -> None:
    exchange.route = found
    if found.live.sessions is not None:
        exchange.hint = _hint(exchange, found, found.live.sessions)


def _look(exchange: Exchange) -> Peek:
    """Find the model; where nothing hangs on it, its usual place is enough."""
    credential = exchange.credential
    if not exchange.runtime.models_matter and (credential is None or not credential.allowed_models):
        seen = first_model(exchange.body)
        if seen is not None:
            return seen
    return peek(exchange.body)


def _hint(exchange: Exchange, found: Route, sessions: SessionHeaders) -> Hint:
    """The request's session, where that decides who gets it."""
    if len(found.pool.endpoints) < 2:
        return NO_HINT
    hint = sessions.find(exchange.head.lines, exchange.model)
    if hint is not None:
        return hint
    return session_in_body(find_top_level(exchange.body, BODY_KEYS), exchange.body, exchange.model)


def _check_allowed(exchange: Exchange, credential: Credential) -> None:
    """A key for some models only must name one of them: an upstream's default is not its choice."""
    if exchange.model is None:
        if exchange.body:
            raise BadRequest("This key needs the model to be named.", param="model")
        return
    if not credential.may_use(exchange.model):
        raise ModelNotFound
