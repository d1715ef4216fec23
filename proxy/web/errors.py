"""Every error of ours becomes OpenAI's error object, in one place.

The body never repeats what came in, so it cannot carry a key or a script back,
and it holds no number beside the message's own words.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

from proxy.errors import MethodNotAllowed, NotFound, ProxyError
from proxy.web.answer import Sent
from proxy.web.exchange import Exchange
from proxy.web.request import Request

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[web.StreamResponse]]


async def errors(request: Request, handler: Handler) -> web.StreamResponse:
    """Turn what was raised below into an answer, or into an honest end if one has begun."""
    exchange = request.exchange
    try:
        return await handler(request)
    except ProxyError as error:
        return _ended(exchange, error)
    except web.HTTPException as error:
        return _ended(exchange, _of_aiohttp(error))
    except Exception as error:
        # Whatever it is, the client gets an answer and the process goes on. The message may hold input.
        log.error("a request failed", extra={"id": exchange.id, "kind": type(error).__name__}, exc_info=error)
        return _ended(exchange, ProxyError("Something went wrong inside the gateway."))


def _ended(exchange: Exchange, failure: ProxyError) -> web.StreamResponse:
    exchange.error = failure.code or failure.type
    if exchange.answer is not None:
        exchange.connection.cut(reset=False)
        return Sent(exchange.status, keeps_alive=False, is_cut=True)
    exchange.status = failure.status
    return error_response(failure, exchange.id)


def error_response(error: ProxyError, request_id: str) -> web.Response:
    return web.Response(
        status=error.status,
        body=error_body(error),
        headers=dict(error_headers(error, request_id)),
    )


def error_headers(error: ProxyError, request_id: str) -> Mapping[str, str]:
    return {"Content-Type": "application/json", "x-request-id": request_id, **error.headers}


def error_body(error: ProxyError) -> bytes:
    return orjson.dumps(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def _of_aiohttp(error: web.HTTPException) -> ProxyError:
    if error.status == 405:
        return MethodNotAllowed(
            "This path does not take this method.", headers={"Allow": error.headers.get("Allow", "")}
        )
    if error.status == 404:
        return NotFound("There is nothing at this path.")
    raise error
