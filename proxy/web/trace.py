"""Names the request, pins the runtime it is served by, and writes its access line.

The outermost middleware: whatever happens inside, an exchange ends here exactly
once, with its line and its figures.
"""

import asyncio
from random import getrandbits
from typing import TYPE_CHECKING

from aiohttp import web

from proxy import clock
from proxy.access import client_ip
from proxy.web.access_line import json_line, text_line
from proxy.web.answer import Sent
from proxy.web.errors import Handler
from proxy.web.exchange import Exchange
from proxy.web.facts import Facts
from proxy.web.request import Request

if TYPE_CHECKING:
    from proxy.web.downstream import DownstreamConnection

# nginx's number for a client that left before its answer; it is never sent.
CLIENT_CLOSED = 499


def new_request_id() -> str:
    """Ids need to differ, not to be secret: the system's generator costs a system call each.

    Python seeds this one anew in a forked process, so workers do not repeat each other.
    """
    return "req_" + hex(1 << 128 | getrandbits(128))[3:]  # with all its zeros; a format costs twice as much


async def trace(request: Request, handler: Handler) -> web.StreamResponse:
    connection = request.connection
    request.exchange = connection.exchange = exchange = _exchange(connection)
    runtime = exchange.runtime
    runtime.enter()
    try:
        response = await handler(request)
        if not isinstance(response, Sent):
            exchange.status = response.status
            response.headers.setdefault("x-request-id", exchange.id)
        return response
    except asyncio.CancelledError:
        exchange.status = exchange.status or CLIENT_CLOSED
        exchange.outcome = connection.aborted_for or "client_closed"
        raise
    finally:
        connection.exchange = None
        _account(exchange, connection.loop.time())
        # They may be large, and what refers to the exchange in a circle waits for the collector.
        exchange.body, exchange.received = b"", None
        runtime.leave()


def _exchange(connection: "DownstreamConnection") -> Exchange:
    head, runtime = connection.head, connection.runtime
    assert head is not None
    facts = Facts.of(head, runtime)
    exchange = Exchange(
        id=facts.given_id or new_request_id(),
        at=clock.wall(),
        began=connection.loop.time(),
        head=head,
        facts=facts,
        connection=connection,
        runtime=runtime,
        client_ip=connection.peer_ip,
    )
    if runtime.trusted_proxies:
        exchange.client_ip = client_ip(exchange.client_ip, facts.forwarded_for, runtime.trusted_proxies)
    return exchange


def _account(exchange: Exchange, now: float) -> None:
    services, runtime = exchange.runtime.services, exchange.runtime
    backend = exchange.endpoint.name if exchange.endpoint is not None else ""
    first_byte = exchange.first_byte - exchange.began if exchange.first_byte is not None else None
    labels = (exchange.facts.label, "true" if exchange.is_stream else "false", backend, str(exchange.status))
    services.metrics.request(labels, (now - exchange.began) * 1000, first_byte)
    if exchange.outcome == "client_closed":
        services.metrics.count(
            "client_disconnects", "streaming" if exchange.answer is not None else "waiting"
        )
    for attempt in exchange.attempts[:-1]:
        services.retries[attempt.rpartition(":")[2]] += 1
    if runtime.access_log is not None:
        line = json_line if runtime.access_format == "json" else text_line
        runtime.access_log.put(line(exchange, now))
