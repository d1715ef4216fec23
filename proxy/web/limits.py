"""Reserves what a request may use before it runs, and settles when its stream has ended."""

from typing import TYPE_CHECKING

from aiohttp import web

from proxy.errors import LimitExceeded
from proxy.limiters.estimate import estimate_tokens
from proxy.limiters.limits import Grant, Limits, Refusal, Subject
from proxy.web.errors import Handler
from proxy.web.exchange import Exchange
from proxy.web.request import Request
from proxy.web.run import in_task

if TYPE_CHECKING:
    from proxy.stores.limits_redis import RedisGrant


async def limits(request: Request, handler: Handler) -> web.StreamResponse:
    exchange = request.exchange
    limiter = exchange.runtime.limits
    if limiter is None or exchange.route is None:
        return await handler(request)
    loop = exchange.connection.loop
    subject = _subject(exchange, exchange.route.label)
    tokens = estimate_tokens(exchange.body) if limiter.counts_tokens(subject) else 0
    if isinstance(limiter, Limits):
        verdict: Grant | RedisGrant | Refusal = limiter.reserve(subject, tokens, loop.time())
    else:
        await in_task()
        verdict = await limiter.reserve(subject, tokens, loop.time())
    if isinstance(verdict, Refusal):
        raise LimitExceeded(verdict.message, headers=verdict.fields())
    exchange.grant = verdict
    try:
        return await handler(request)
    finally:
        now = loop.time()
        verdict.settle(exchange.total_tokens if exchange.reached_upstream else 0, now)
        verdict.release(now)


def _subject(exchange: Exchange, model: str) -> Subject:
    credential = exchange.credential
    if credential is None:
        return Subject(None, None, model, exchange.client_ip)
    return Subject(
        credential.key_id, credential.user_id or None, model, exchange.client_ip, credential.limits
    )
