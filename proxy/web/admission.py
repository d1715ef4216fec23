"""A place in a pool's queue: waiting instead of refusing, fairly, while every backend is busy.

What waits costs one future. A client that leaves while it waits is cancelled
like any other, and its place is free at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil

from proxy.errors import Overloaded
from proxy.limiters.queue import Full, Ticket
from proxy.runtime.pools import LivePool
from proxy.web.exchange import Exchange
from proxy.web.run import in_task

# Who waits looks so often whether the pool has changed, which costs some 50 µs. Others come and go meanwhile.
LOOK_AGAIN_SECONDS = 1.0


@asynccontextmanager
async def admission(exchange: Exchange, live: LivePool) -> AsyncIterator[None]:
    """Wait for a place in front of the pool and hold it; raises Overloaded if there is none in time."""
    loop = exchange.connection.loop
    waiting = live.waiting_room(loop.time())
    if waiting is None:
        yield
        return
    decision: asyncio.Future[bool] = loop.create_future()

    def decided(admitted: bool) -> None:
        if not decision.done():
            decision.set_result(admitted)

    credential = exchange.credential
    ticket = waiting.enter(
        credential.key_id if credential is not None else exchange.client_ip,
        exchange.hint.session.hex() if exchange.hint.session is not None else None,
        is_subagent=exchange.hint.parent is not None,
        now=loop.time(),
        decided=decided,
    )
    if isinstance(ticket, Full):
        raise _refused("Too many requests are waiting for this model.", ticket.retry_after)
    try:
        if ticket.is_waiting:
            await in_task()
            await _wait(exchange, live, ticket, decision)
        yield
    finally:
        now = loop.time()
        live.waiting_room(now)  # it may have run where nothing new goes: its place goes with it
        ticket.leave(now)


async def _wait(exchange: Exchange, live: LivePool, ticket: Ticket, decision: asyncio.Future[bool]) -> None:
    connection, began = exchange.connection, exchange.connection.loop.time()
    queue = live.queue
    assert queue is not None
    position = queue.position(ticket)
    connection.is_forwarding = True  # from here on, a client that stops sending has left
    try:
        async with asyncio.timeout(live.settings.queue.max_wait):
            admitted = await _decided(live, decision)
    except TimeoutError:
        admitted = False
    waited = connection.loop.time() - began
    exchange.added_lines += b"x-llmproxy-queue-position: %d\r\nx-llmproxy-queue-wait-ms: %d\r\n" % (
        position,
        waited * 1000,
    )
    exchange.runtime.services.metrics.queue_wait.observe(waited)
    if not admitted:
        raise _refused("No backend for this model became free in time.", queue.expected_wait(ticket))


async def _decided(live: LivePool, decision: asyncio.Future[bool]) -> bool:
    """What is decided, by somebody who leaves or because the pool has changed: a server is there again."""
    loop = decision.get_loop()
    usable = live.pool.usable(loop.time())
    while not (await asyncio.wait([decision], timeout=LOOK_AGAIN_SECONDS))[0]:
        now = loop.time()
        before, usable = usable, live.pool.usable(now)
        if usable is not before:
            live.waiting_room(now)
    return decision.result()


def _refused(message: str, seconds: float) -> Overloaded:
    wait = max(ceil(seconds), 1)
    return Overloaded(message, headers={"Retry-After": str(wait), "retry-after-ms": str(wait * 1000)})
