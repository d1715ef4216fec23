"""Meters what went by and hands one record per forwarded request to the outbox."""

from datetime import UTC, datetime

from aiohttp import web
from msgspec import UNSET

from proxy.balancers.affinity_key import SessionHeaders
from proxy.errors import Overloaded, ProxyError, UpstreamTimeout
from proxy.runtime import Route
from proxy.sinks.outbox import Outbox
from proxy.upstream.connection import Failure
from proxy.usage.estimate import estimate
from proxy.usage.meter import Metered
from proxy.usage.record import Outcome, UsageRecord
from proxy.usage.tokens import Usage, usage_from_headers
from proxy.web.errors import Handler
from proxy.web.exchange import Exchange
from proxy.web.request import Request
from proxy.wire.http1 import MAX_MEMO

TIMEOUT = Failure.FIRST_BYTE_TIMEOUT.value

# What a client names itself is cut to this in a record.
MAX_MODEL_CHARS = 256
MAX_SESSION_BYTES = 256

_SESSIONS = SessionHeaders()

_LEFT = ("client_closed", Failure.STALLED_READER.value)
_TIMEOUTS = (Failure.FIRST_BYTE_TIMEOUT.value, Failure.IDLE_TIMEOUT.value, Failure.TOTAL_TIMEOUT.value)


async def usage(request: Request, handler: Handler) -> web.StreamResponse:
    exchange = request.exchange
    if exchange.route is None:
        return await handler(request)
    if exchange.runtime.services.spool_is_full:
        raise Overloaded("What requests use cannot be recorded at the moment.", headers={"Retry-After": "5"})
    keys, credential = exchange.runtime.keys, exchange.credential
    if keys is not None and credential is not None and credential.quota is not None:
        keys.debit(credential, requests=1)  # at once, or parallel requests would all find room
    try:
        return await handler(request)
    except ProxyError as error:
        if exchange.answer is None:
            exchange.status = error.status
            exchange.outcome = TIMEOUT if isinstance(error, UpstreamTimeout) else exchange.outcome
        raise
    finally:
        if exchange.reached_upstream:
            _account(exchange)


def _account(exchange: Exchange) -> None:
    metered = exchange.finish_metering()
    found = metered.usage or _from_head(exchange)
    is_estimated = found is None and exchange.answer is not None and exchange.answer.status < 400
    if is_estimated:
        found = estimate(metered, len(exchange.body))
    exchange.usage = found
    services = exchange.runtime.services
    calls = _tool_calls(exchange, metered)
    if calls and exchange.route is not None:
        services.metrics.events["model_tool_calls", exchange.route.label] += calls
    if found is not None:
        flag = "true" if is_estimated else "false"
        services.metrics.tokens["prompt", flag] += found.prompt
        services.metrics.tokens["completion", flag] += found.completion
    keys, credential = exchange.runtime.keys, exchange.credential
    if keys is not None and credential is not None and credential.quota is not None and found is not None:
        keys.debit(credential, tokens=found.total)
    if services.outbox is not None:
        record = _record(exchange, metered, services.outbox, tool_calls=calls, is_estimated=is_estimated)
        services.outbox.put(record)


def _tool_calls(exchange: Exchange, metered: Metered) -> int:
    """Those that the upstream named, and those that an adapter found in what the model wrote."""
    rewrite = exchange.rewrite
    translation = rewrite.translation if rewrite is not None else None
    return metered.tool_calls + (translation.counts.calls if translation is not None else 0)


def _record(
    exchange: Exchange, metered: Metered, outbox: Outbox, *, tool_calls: int, is_estimated: bool
) -> UsageRecord:
    credential, route, endpoint = exchange.credential, exchange.route, exchange.endpoint
    assert route is not None and endpoint is not None
    now = exchange.connection.loop.time()
    first_byte = exchange.first_byte
    outcome = _outcome(exchange)
    return UsageRecord(
        id=outbox.new_id(),
        request_id=exchange.id,
        timestamp=datetime.fromtimestamp(exchange.at, UTC),
        model=(exchange.model or "")[:MAX_MODEL_CHARS],
        path=exchange.facts.path,
        method=exchange.facts.method,
        backend=endpoint.name,
        pool=route.pool.name,
        status_code=exchange.status,
        outcome=outcome,
        latency_ms=_milliseconds(now - exchange.began),
        ttfb_ms=_milliseconds(first_byte - exchange.began) if first_byte is not None else None,
        attempts=max(len(exchange.attempts), 1),
        stream=exchange.is_stream,
        key_id=credential.key_id if credential is not None else None,
        key_name=(credential.name or None) if credential is not None else None,
        user_id=(credential.user_id or None) if credential is not None else None,
        session=_session(exchange, route),
        upstream_model=route.upstream_model.decode() if route.upstream_model is not None else None,
        backend_url=endpoint.url,
        response_id=metered.response_id,
        usage=exchange.usage or UNSET,
        tool_calls=tool_calls,
        estimated=is_estimated,
        incomplete=outcome != "complete",
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000 + 0.5)


def _session(exchange: Exchange, route: Route) -> str | None:
    """What the client calls its session in a header, also where there is but one endpoint for all."""
    head, sessions = exchange.head, route.live.sessions or _SESSIONS
    name: str | None = head.memo.get(sessions)
    if name is None:
        found, _ = sessions.named(head.lines)
        name = found[:MAX_SESSION_BYTES].decode(errors="replace")
        if len(head.memo) < MAX_MEMO:
            head.memo[sessions] = name
    return name or None


def _outcome(exchange: Exchange) -> Outcome:
    if exchange.outcome == "complete":
        return "complete" if exchange.status < 400 else "error"
    if exchange.outcome in _LEFT:
        # A client that has the end of its stream may hang up before ours: nothing was lost.
        done = exchange.metered is not None and exchange.metered.terminal
        return "complete" if done else "client_closed"
    if exchange.outcome in _TIMEOUTS:
        return "timeout"
    return "upstream_cut" if exchange.answer is not None else "error"


def _from_head(exchange: Exchange) -> Usage | None:
    """TGI counts tokens in its answer's headers."""
    if exchange.answer is None:
        return None
    return usage_from_headers((line.lower, line.value) for line in exchange.answer.lines)
