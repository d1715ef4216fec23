"""One attempt at one endpoint: the bytes there and back, and what they say about the endpoint."""

import logging
from collections.abc import Callable
from typing import Protocol

from proxy.health.blame import outcome_of
from proxy.runtime.routes import Route
from proxy.upstream.connection import Failure
from proxy.upstream.pool import Lease, Outcome
from proxy.upstream.tunnel import ProxyFailed
from proxy.web.exchange import Exchange
from proxy.web.relay import Relay
from proxy.web.run import in_task
from proxy.wire.http1 import AnswerHead
from proxy.wire.json_bytes import replace_model

log = logging.getLogger(__name__)

_OUTCOMES = {
    Failure.CONNECT: Outcome.CONNECT_FAILED,
    Failure.UNSENT: Outcome.STALE,
    Failure.NO_ANSWER: Outcome.RESET,
    Failure.CUT: Outcome.RESET,
    Failure.BAD_HEAD: Outcome.BAD_ANSWER,
    Failure.BAD_BODY: Outcome.BAD_ANSWER,
    Failure.FIRST_BYTE_TIMEOUT: Outcome.TIMEOUT,
    Failure.IDLE_TIMEOUT: Outcome.TIMEOUT,
    Failure.TOTAL_TIMEOUT: Outcome.TIMEOUT,
    Failure.UNRESPONSIVE: Outcome.UNRESPONSIVE,
    Failure.STALLED_READER: Outcome.CLIENT_CLOSED,
}


class Chooser(Protocol):
    """Whoever knows whether there is another attempt."""

    def declines(self, attempt: "Attempt", head: AnswerHead, reason: bytes) -> bool:
        """Whether this answer is left to another attempt."""

    def leaves(self, attempt: "Attempt") -> bool:
        """Asked during a silence: whether this server is left to try another."""


class Attempt:
    """Runs once. It judges the answer for its relay (see web.relay.Judge)."""

    __slots__ = (
        "_chooser",
        "_exchange",
        "_loop",
        "_route",
        "awaits_body",
        "endpoint",
        "failure",
        "is_key_refused",
        "is_outrun",
        "lease",
        "reached_until",
        "relay",
        "rewrite",
        "wins",
    )

    def __init__(
        self,
        exchange: Exchange,
        route: Route,
        lease: Lease,
        *,
        chooser: Chooser,
        awaits_body: bool = False,
    ) -> None:
        self._exchange = exchange
        self._route = route
        self._loop = exchange.connection.loop
        self._chooser = chooser
        self.awaits_body = awaits_body
        self.lease = lease
        self.endpoint = lease.endpoint
        self.rewrite = lease.endpoint.rewrite  # with the credential of this moment
        self.relay = Relay(exchange, self)
        self.failure: Failure | None = None
        self.reached_until = ""  # the phase at which a connection through a proxy failed
        self.is_key_refused = False  # and another key may be accepted
        self.wins: Callable[[Attempt], bool] | None = None  # where two race: whether this one is heard
        self.is_outrun = False

    async def run(self) -> None:
        """Send the request and relay the answer, if it is the one that the client is to have."""
        exchange, relay = self._exchange, self.relay
        began = self._loop.time()
        outcome = Outcome.CLIENT_CLOSED
        try:
            self.failure = await self._exchange_bytes()
            outcome = self._outcome()
        finally:
            first = exchange.first_byte - began if exchange.first_byte is not None and relay.began else None
            self.lease.finish(outcome, self._loop.time(), first)
            exchange.attempts.append(f"{self.endpoint.name}:{self._word()}")

    def let_go(self) -> None:
        """The race is over: nobody writes to the client any more, and who was stopped before it ran ends."""
        self.lease.finish(Outcome.CLIENT_CLOSED, self._loop.time())
        self._exchange.connection.forwarding(None)

    # -- what the relay asks -----------------------------------------------

    @property
    def is_alone(self) -> bool:
        return self.wins is None

    def declines(self, head: AnswerHead, reason: bytes) -> bool:
        return self._chooser.declines(self, head, reason)

    def leaves(self) -> bool:
        return self._chooser.leaves(self)

    def may_begin(self) -> bool:
        if self.wins is None:
            return True
        if not self.wins(self):
            return False
        self._exchange.endpoint = self.endpoint
        return True

    def answered(self, head: AnswerHead) -> None:
        if head.status < 400:
            self.lease.answered(self._loop.time())
            self.endpoint.key_worked(self.rewrite)

    # -- inside ------------------------------------------------------------

    async def _exchange_bytes(self) -> Failure | None:
        exchange, connections = self._exchange, self.endpoint.connections
        upstream = connections.take() or await connections.proven()
        is_fresh = upstream is None
        timeouts = self._route.timeouts(self.endpoint)
        if upstream is None:
            await in_task()
            try:
                upstream = await connections.connect(timeouts.connect)
            except OSError as error:
                log.info("upstream not reached", extra={"backend": self.endpoint.name, "why": str(error)})
                self.reached_until = error.phase if isinstance(error, ProxyFailed) else ""
                return Failure.CONNECT
        body = self._body()
        head = self.rewrite.head(exchange.head, body_length=len(body))
        previous, exchange.endpoint = exchange.endpoint, self.endpoint
        failure = await self.relay.run(upstream, head, body, method=exchange.head.method, timeouts=timeouts)
        if failure is Failure.UNSENT and exchange.endpoint is self.endpoint:
            exchange.endpoint = previous
        # A server that takes a connection and closes it at once is one that could not be reached.
        return Failure.CONNECT if failure is Failure.UNSENT and is_fresh else failure

    def _body(self) -> bytes:
        exchange, name = self._exchange, self._route.upstream_model
        if name is None or exchange.model_span is None:
            return exchange.body
        return replace_model(exchange.body, exchange.model_span, name)

    def _outcome(self) -> Outcome:
        if self.failure is not None:
            return _OUTCOMES[self.failure]
        relay = self.relay
        if relay.answer is None:
            return Outcome.CLIENT_CLOSED
        if relay.is_late:
            return Outcome.CLIENT_CLOSED
        if self.is_key_refused:
            return Outcome.CLIENT_ERROR
        return outcome_of(relay.answer.status, relay.reason)

    def _word(self) -> str:
        """An attempt's end in one word, for the access line."""
        if self.failure is not None:
            return self.failure.value
        if self.is_outrun:
            return "outrun"
        return str(self.relay.answer.status) if self.relay.answer is not None else "cancelled"
