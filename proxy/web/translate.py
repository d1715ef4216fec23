"""The one place where bodies are rewritten: a model's adapters, at work on one request.

A request that its model's adapters have nothing to do with keeps its bytes, and
so does its answer. For the others the parsed body is rewritten here, and the
exchange carries what rewrites the answer.
"""

from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from proxy.adapters.normalize_errors import NormalizeErrors
from proxy.config import schema_pools as schema
from proxy.errors import BadRequest
from proxy.metrics import Metrics
from proxy.usage.ask import UsageHider, ask_for_usage, takes_stream_options
from proxy.web.errors import Handler
from proxy.web.exchange import Exchange
from proxy.web.prefix import PrefixWatch, session_of
from proxy.web.request import Request
from proxy.web.rewrite import AnswerRewrite
from proxy.wire.http1 import RequestHead, read_line
from proxy.wire.json_bytes import peek
from proxy.wire.openai import Json, parsed_request

if TYPE_CHECKING:
    from proxy.adapters.clamp_max_tokens import ClampMaxTokens
    from proxy.adapters.model import ModelAdapters
    from proxy.adapters.prefix_guard import PrefixGuard

CHAT = b"/chat/completions"
MESSAGES = b"/messages"  # Anthropic's
RESPONSES = b"/responses"

_TOOLS = b'"tools"'

_IDENTITY = read_line(b"Accept-Encoding: identity")


def translate(request: Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    found = request.exchange.route
    if found is None or not found.may_rewrite:
        return handler(request)
    return _translate(request, handler)


async def _translate(request: Request, handler: Handler) -> web.StreamResponse:
    exchange = request.exchange
    plan(exchange)
    try:
        return await handler(request)
    finally:
        if exchange.received is not None:
            _account(exchange)


def plan(exchange: Exchange) -> None:
    """Work out what the exchange's route rewrites, from the request as it came."""
    route = exchange.route
    if exchange.received is not None:  # planned before, for another route
        exchange.head, exchange.body, exchange.model_span = exchange.received
        exchange.rewrite = exchange.prefix = None
    if route is None or route.model is None or not route.rewrites or exchange.head.method != b"POST":
        return
    exchange.received = exchange.head, exchange.body, exchange.model_span
    _prepare(exchange, route.model)


def _prepare(exchange: Exchange, model: schema.Model) -> None:
    path = exchange.head.target.partition(b"?")[0]
    route = exchange.route
    assert route is not None
    rewrite = AnswerRewrite(keep_alive=model.sse_keep_alive, is_anthropic=path.endswith(MESSAGES))
    if model.sse_keep_alive is not None and exchange.head.minor:
        rewrite.may_begin_early = bool(peek(exchange.body).stream)
    adapters = route.adapters
    if adapters is not None:
        _adapt(exchange, adapters, path, rewrite)
    if model.ask_usage and takes_stream_options(path):
        _ask_usage(exchange, rewrite)
    if adapters is not None and adapters.clamp is not None:
        _clamp(exchange, adapters.clamp)
    if rewrite.has_work:
        exchange.rewrite = rewrite
        exchange.head = _asking_for_identity(exchange.head)


def _adapt(exchange: Exchange, adapters: "ModelAdapters", path: bytes, rewrite: AnswerRewrite) -> None:
    """Rewrite the request, and see to what its answer needs."""
    is_messages = path.endswith(MESSAGES)
    if adapters.normalizes_errors:
        rewrite.errors = NormalizeErrors(anthropic=is_messages)
    if path.endswith(CHAT):
        body = _parsed(exchange.body) if adapters.chat is not None else parsed_request(exchange.body)
    else:
        is_guarded = adapters.guard is not None and path.endswith((MESSAGES, RESPONSES))
        body = parsed_request(exchange.body) if is_guarded else None
    if body is None:
        return
    try:
        sent = adapters.guard.rewrite(body) if adapters.guard is not None else body
        if sent is not body:
            exchange.runtime.services.metrics.count("prefix_stripped", _label(exchange))
        if path.endswith(CHAT):
            sent = _translated(sent, adapters, rewrite)
        if sent is not body:
            _send_instead(exchange, orjson.dumps(sent))
    except (TypeError, RecursionError) as error:
        if isinstance(error, TypeError) and not _is_deep(body):
            raise
        raise BadRequest("The request body is nested too deeply.") from error
    if adapters.guard is not None:
        _watch_prefix(exchange, adapters.guard, body, sent)


def _watch_prefix(exchange: Exchange, guard: "PrefixGuard", body: Json, sent: Json) -> None:
    session = session_of(exchange, body)
    key = guard.key(session, sent) if session is not None else None
    if key is not None:
        exchange.prefix = PrefixWatch(guard, _label(exchange), key)
        exchange.prefix.compare(sent, exchange.runtime.services.metrics)


def _translated(body: Json, adapters: "ModelAdapters", rewrite: AnswerRewrite) -> Json:
    """A chat request for the upstream; the same object if its bytes may go as they came."""
    rewrite.calls = adapters.repair(body)
    translation = adapters.chat.plan(body) if adapters.chat is not None else None
    if translation is None:
        return body
    if translation.answers:
        rewrite.translation = translation
    return translation.request(body)


def _clamp(exchange: Exchange, clamp: "ClampMaxTokens") -> None:
    clamped = clamp.rewrite(exchange.body)
    if clamped is not exchange.body:
        exchange.runtime.services.metrics.count("max_tokens_clamped", _label(exchange))
        _send_instead(exchange, clamped)


def _parsed(body: bytes) -> Json | None:
    """The request's object; None where it is none but has no tools either, so that its bytes may pass."""
    parsed = parsed_request(body)
    if parsed is None and _TOOLS in body:
        raise BadRequest("The request body is not a JSON object.")
    return parsed


def _is_deep(body: Json) -> bool:
    """Whether it is nested deeper than orjson writes, though not than it reads."""
    try:
        orjson.dumps(body)
    except TypeError:
        return True
    return False


def _ask_usage(exchange: Exchange, rewrite: AnswerRewrite) -> None:
    """Ask the upstream for a stream's usage where the client did not, and hide the answer to that."""
    seen = peek(exchange.body, "stream_options")
    if not seen.stream:
        return
    asked = ask_for_usage(exchange.body, seen.values)
    if asked is not None:
        _send_instead(exchange, asked)
        rewrite.hider = UsageHider()


def _send_instead(exchange: Exchange, body: bytes) -> None:
    exchange.body = body
    exchange.model_span = peek(body).model_span


def _asking_for_identity(head: RequestHead) -> RequestHead:
    """A body that is to be rewritten must not come compressed."""
    lines = [line for line in head.lines if line.lower != b"accept-encoding"]
    return replace(head, lines=[*lines, _IDENTITY])


def _account(exchange: Exchange) -> None:
    """What is counted, and learned, when all is over."""
    metrics, label = exchange.runtime.services.metrics, _label(exchange)
    rewrite, adapters = exchange.rewrite, exchange.route.adapters if exchange.route is not None else None
    if rewrite is not None and rewrite.translation is not None:
        counts = rewrite.translation.counts
        _add(
            metrics,
            rewrite.translation.format,
            tool_calls=counts.calls,
            tool_calls_unknown=counts.unknown,
            tool_calls_repaired=counts.repaired,
            tool_calls_dropped=counts.dropped,
            adapter_failures=counts.failures,
        )
    if rewrite is not None:
        _add(metrics, label, adapter_failures=rewrite.failures)
    if rewrite is not None and rewrite.calls is not None:
        calls = rewrite.calls
        _add(metrics, label, tool_calls_malformed=calls.malformed, tool_calls_invalid=calls.invalid)
    usage = exchange.metered.usage if exchange.metered is not None and exchange.status == 200 else None
    if exchange.prefix is not None:
        exchange.prefix.account(usage, metrics)
    if adapters is not None and adapters.clamp is not None and usage is not None:
        adapters.clamp.learn(exchange.body, usage.prompt)


def _add(metrics: Metrics, label: str, **amounts: int) -> None:
    for name, amount in amounts.items():
        if amount:
            metrics.events[name, label] += amount


def _label(exchange: Exchange) -> str:
    """The model's name in figures: that of the configuration."""
    return exchange.route.label if exchange.route is not None else ""
