"""The handler of everything that is forwarded: attempts, until one answers.

A further attempt is made only while nothing has gone to the client, and only
where nothing of the request can have run, or where the configuration says so.
"""

import asyncio
import logging

from aiohttp import web

from proxy import clock
from proxy.errors import Overloaded, ProxyError, UpstreamFailed, UpstreamTimeout
from proxy.health.blame import outcome_of
from proxy.health.retry import retry_after_seconds
from proxy.upstream.connection import Failure
from proxy.upstream.pool import Endpoint, Lease, Outcome
from proxy.web.admission import admission
from proxy.web.answer import Sent
from proxy.web.attempt import Attempt
from proxy.web.exchange import Exchange
from proxy.web.race import Race
from proxy.web.relay import Relay
from proxy.web.request import Request
from proxy.web.run import in_task
from proxy.web.translate import plan
from proxy.wire.http1 import AnswerHead

log = logging.getLogger(__name__)

# A request that may have run can be repeated without harm for these (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS"))

# However many backends and retries there are: an answer that took this many attempts will not come.
MAX_ATTEMPTS = 32

# Answers that say "not here, not now": another pool may do better. The request has not run.
FALLBACK_STATUSES = frozenset((429, 502, 503, 504))

# Answers to a key rather than to a request.
KEY_STATUSES = frozenset((401, 403, 429))

_NOT_ARRIVED = (Failure.CONNECT, Failure.UNSENT)

# After these the request may have run, and nobody said that it may run again.
_MAY_HAVE_RUN = (
    Failure.NO_ANSWER,
    Failure.BAD_HEAD,
    Failure.BAD_BODY,
    Failure.CUT,
    Failure.IDLE_TIMEOUT,
    Failure.TOTAL_TIMEOUT,
)


_OUT_OF_TIME = (
    Failure.FIRST_BYTE_TIMEOUT,
    Failure.IDLE_TIMEOUT,
    Failure.TOTAL_TIMEOUT,
    Failure.UNRESPONSIVE,
)


async def forward(request: Request) -> web.StreamResponse:
    """Relay the request to its pool and the answer back."""
    exchange = request.exchange
    connection = exchange.connection
    try:
        if connection.is_gone:
            raise asyncio.CancelledError
        return await Attempts(exchange).run()
    except asyncio.CancelledError:
        exchange.outcome = connection.aborted_for or "client_closed"
        raise


class Attempts:
    """The attempts of one exchange: where the next one goes, and whether there is one."""

    def __init__(self, exchange: Exchange) -> None:
        assert exchange.route is not None
        self._exchange = exchange
        self._loop = exchange.connection.loop
        self._route = exchange.route
        self._fallbacks = list(exchange.route.fallbacks)
        self._excluded: list[Endpoint] = []
        self._made = 0  # on this route
        self._total = 0
        self._wait: float | None = None
        self._again: Endpoint | None = None  # the next attempt is its, with another key
        self._hedge_after: float | None = None  # so much silence may start a second attempt, once

    async def run(self) -> web.StreamResponse:
        now = self._loop.time()
        self._route.retry.began(now)
        self._hedge_after = self._route.live.hedge.began(now)
        while True:
            route = self._route
            if route.live.queue is None:
                sent = await self._on_route()
            else:
                sent = await self._in_turn()
            if sent is not None:
                return sent

    async def _in_turn(self) -> web.StreamResponse | None:
        """As `_on_route`, behind the queue; where that is full or too slow, the next route is tried."""
        try:
            async with admission(self._exchange, self._route.live):
                return await self._on_route()
        except Overloaded:
            if not self._fall_back():
                raise
            return None

    async def _on_route(self) -> web.StreamResponse | None:
        """All attempts on the current route; None where the next one of the chain is to be tried."""
        while True:
            if self._hedge_after is not None:
                await in_task()
            lease = self._lease()
            if lease is None:
                return None
            attempt = self._attempt(lease)
            if self._hedge_after is None:
                await attempt.run()
            else:
                attempt = await Race(attempt).run(self._hedge_after, self._company)
            relay, failure = attempt.relay, attempt.failure
            if relay.began:
                return self._sent(relay, failure)
            wait = self._wait if relay.declined else self._wait_after(failure, attempt.endpoint)
            if wait:
                await asyncio.sleep(wait)
            elif wait is None:
                if self._fall_back():
                    return None
                raise _error(attempt)

    def _lease(self) -> Lease | None:
        """A claim on this route's pool; None where it has nobody left and the next route is to be tried."""
        pool, excluded = self._route.pool, self._excluded
        again, self._again = self._again, None
        if again is not None:
            excluded = [one for one in pool.endpoints if one is not again]
        else:
            self._made += 1
        self._total += 1
        try:
            return pool.lease(self._exchange.hint, self._loop.time(), excluded)
        except Overloaded:
            if not self._fall_back():
                raise
            return None

    def _company(self, silent: Attempt) -> Attempt | None:
        """A second attempt at another endpoint than the silent one's, if there may be one."""
        self._hedge_after = None
        now, route = self._loop.time(), self._route
        if (
            not self._others(silent.endpoint)
            or self._total >= MAX_ATTEMPTS
            or not route.live.hedge.may_start(now)
        ):
            return None
        try:
            lease = route.pool.lease(self._exchange.hint, now, [silent.endpoint, *self._excluded])
        except Overloaded:
            return None
        self._total += 1
        return self._attempt(lease)

    def _attempt(self, lease: Lease) -> Attempt:
        """At this endpoint; where its silence may be followed by another, a head is not passed on alone."""
        route = self._route
        may_follow = (
            bool(self._fallbacks) or route.retry.follows_silence or route.live.hedge.settings is not None
        )
        # Who wants comment lines while an upstream prefills wants the head as well.
        wants_head = route.model is not None and route.model.sse_keep_alive is not None
        return Attempt(
            self._exchange,
            route,
            lease,
            chooser=self,
            awaits_body=may_follow and not wants_head,
        )

    def _fall_back(self) -> bool:
        """Go on with the next route of the model's chain, if there is one."""
        if not self._fallbacks or self._total >= MAX_ATTEMPTS:
            return False
        self._exchange.route = self._route = self._fallbacks.pop(0)
        plan(self._exchange)  # another model may need other rewriting, or none
        self._excluded.clear()
        self._made = 0
        return True

    # -- whether there is another attempt ----------------------------------

    def declines(self, attempt: Attempt, head: AnswerHead, reason: bytes) -> bool:
        """Asked when an answer's head has come: leave it, and try again?"""
        if head.status < 400 or self._total >= MAX_ATTEMPTS:
            return False
        if outcome_of(head.status, reason) is Outcome.CLIENT_ERROR and head.status >= 500:
            return False  # the prompt's fault, whatever the status says: the next server would say the same
        endpoint = attempt.endpoint
        asked = retry_after_seconds(head.get(b"retry-after"), head.get(b"retry-after-ms"), clock.wall())
        now = self._loop.time()
        if head.status in KEY_STATUSES and endpoint.key_refused(attempt.rewrite, head.status, asked, now):
            attempt.is_key_refused = True
            self._again, self._wait = endpoint, 0.0
            return True
        self._wait = self._route.retry.wait_after_status(
            head.status, asked, self._made, now=now, elsewhere=self._others(endpoint)
        )
        if self._wait is not None:
            self._avoid(endpoint)
            return True
        return bool(self._fallbacks) and head.status in FALLBACK_STATUSES

    def leaves(self, attempt: Attempt) -> bool:
        """Asked during a silence: a server that answers nobody is left where somebody else may answer."""
        endpoint, now = attempt.endpoint, self._loop.time()
        if not endpoint.is_unresponsive or self._total >= MAX_ATTEMPTS:
            return False
        if self._route.pool.has_responsive(now, [endpoint, *self._excluded]) and self._may_leave(now):
            self._wait = 0.0
            self._excluded.append(endpoint)
            return True
        self._wait = None
        return self._route.retry.leaves_unresponsive and any(
            other.pool.available for other in self._fallbacks
        )

    def _may_leave(self, now: float) -> bool:
        if self._exchange.head.method in IDEMPOTENT and self._made == 1:
            return True
        return self._route.retry.may_leave_unresponsive(self._made, now=now)

    def _wait_after(self, failure: Failure | None, endpoint: Endpoint) -> float | None:
        """Seconds until the next attempt on this route after a failure, None if there is none."""
        if failure is None or self._total >= MAX_ATTEMPTS:
            return None
        if failure is Failure.UNSENT:
            return 0.0  # a fresh connection to the same backend is as good as any
        if failure is Failure.CONNECT:
            if not self._others(endpoint):
                return None
            self._avoid(endpoint)
            return 0.0
        if failure is Failure.NO_ANSWER and self._exchange.head.method in IDEMPOTENT and self._made == 1:
            return 0.0
        if failure is Failure.FIRST_BYTE_TIMEOUT:
            others = self._others(endpoint)
            self._avoid(endpoint)
            return self._route.retry.wait_after_timeout(self._made, now=self._loop.time(), elsewhere=others)
        if failure is Failure.NO_ANSWER:
            wait = self._route.retry.wait_after_no_answer(
                self._made, now=self._loop.time(), elsewhere=self._others(endpoint)
            )
            if wait is not None:
                self._avoid(endpoint)
                return wait
        if failure in _MAY_HAVE_RUN:
            self._fallbacks.clear()
        return None

    def _others(self, endpoint: Endpoint) -> bool:
        """Whether there is an endpoint that was not tried yet and would get the request."""
        return self._route.pool.has_other([endpoint, *self._excluded])

    def _avoid(self, endpoint: Endpoint) -> None:
        """Go elsewhere next; once everybody was tried, everybody may be tried again."""
        self._excluded.append(endpoint)
        if not self._route.pool.has_other(self._excluded):
            self._excluded.clear()

    def _sent(self, relay: Relay, failure: Failure | None) -> Sent:
        exchange = self._exchange
        exchange.outcome = "complete" if failure is None else failure.value
        return Sent(
            exchange.status,
            keeps_alive=relay.keeps_alive and failure is None,
            is_cut=failure is not None,
        )


def _error(attempt: Attempt) -> ProxyError:
    failure = attempt.failure
    if attempt.reached_until:  # a proxy is a second suspect: whoever reads this must know which
        return UpstreamFailed(
            f"The upstream server {attempt.endpoint.name} could not be reached: "
            f"{attempt.reached_until} failed."
        )
    if failure in _NOT_ARRIVED:
        return UpstreamFailed("The upstream server could not be reached.")
    if failure is Failure.NO_ANSWER:
        return UpstreamFailed("The upstream server closed the connection without an answer.")
    if failure in _OUT_OF_TIME:
        return UpstreamTimeout("The upstream server did not answer in time.")
    return UpstreamFailed("The upstream server sent something that is not a valid answer.")
