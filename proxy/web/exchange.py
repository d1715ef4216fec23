"""What is known about one request, from its head to its record.

Each middleware fills in what it finds out; the access line, the metrics and the
usage record are read from here when the request is over.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from proxy.balancers import Hint
from proxy.usage.choose import meter_for
from proxy.usage.meter import Meter, Metered
from proxy.usage.tokens import Usage
from proxy.web.facts import Facts
from proxy.wire.http1 import AnswerHead, RequestHead

if TYPE_CHECKING:
    from proxy.access import Credential
    from proxy.limiters.limits import Grant
    from proxy.runtime import Route, Runtime
    from proxy.stores.limits_redis import RedisGrant
    from proxy.upstream.pool import Endpoint
    from proxy.web.downstream import DownstreamConnection
    from proxy.web.prefix import PrefixWatch
    from proxy.web.rewrite import AnswerRewrite

log = logging.getLogger(__name__)

NO_HINT = Hint()


class Exchange:
    """One request and its answer. Times are the loop's clock but for `at` (Unix seconds)."""

    __slots__ = (
        "added_lines",
        "answer",
        "at",
        "attempts",
        "began",
        "body",
        "bytes_out",
        "client_ip",
        "connection",
        "credential",
        "endpoint",
        "error",
        "facts",
        "first_byte",
        "grant",
        "head",
        "hint",
        "id",
        "is_stream",
        "meter",
        "metered",
        "model",
        "model_span",
        "outcome",
        "prefix",
        "received",
        "replaced_names",
        "rewrite",
        "route",
        "runtime",
        "status",
        "usage",
    )

    def __init__(
        self,
        id: str,
        *,
        at: float,
        began: float,
        head: RequestHead,
        facts: Facts,
        connection: "DownstreamConnection",
        runtime: "Runtime",
        client_ip: str = "",
    ) -> None:
        self.id = id
        self.at = at
        self.began = began
        self.head = head
        self.facts = facts
        self.connection = connection
        self.runtime = runtime
        self.client_ip = client_ip
        self.credential: Credential | None = None
        self.model: str | None = None
        self.is_stream = False
        self.body = b""
        self.route: Route | None = None
        self.grant: Grant | RedisGrant | None = None
        self.endpoint: Endpoint | None = None
        self.attempts: list[str] = []
        self.answer: AnswerHead | None = None
        self.status = 0
        self.outcome = "refused"  # how it ended, as the usage record has it
        self.error: str | None = None  # the code of an error answer of our own
        self.first_byte: float | None = None
        self.bytes_out = 0
        self.meter: Meter | None = None
        self.metered: Metered | None = None
        self.usage: Usage | None = None
        self.hint = NO_HINT
        self.model_span: tuple[int, int] | None = None
        self.added_lines = b""
        self.replaced_names: frozenset[bytes] = frozenset()  # of the answer's lines that ours stand for
        # before anything was rewritten
        self.received: tuple[RequestHead, bytes, tuple[int, int] | None] | None = None
        self.rewrite: AnswerRewrite | None = None
        self.prefix: PrefixWatch | None = None

    @property
    def reached_upstream(self) -> bool:
        """Whether any byte of it may have been read by an upstream."""
        return self.endpoint is not None

    @property
    def total_tokens(self) -> int | None:
        """What it used, once that is known."""
        return self.usage.total if self.usage is not None else None

    def extra_lines(self) -> bytes:
        """The header lines that we add to an upstream's answer: request id, limits, CORS, prefix."""
        lines = self.added_lines
        if self.answer is None or self.answer.get(b"x-request-id") is None:
            lines += f"x-request-id: {self.id}\r\n".encode("ascii")
        if self.grant is not None:
            lines += self.grant.headers
        if self.prefix is not None:
            lines += self.prefix.lines
        return lines

    def watch_answer(self, head: AnswerHead) -> None:
        """An answer begins: learn from its body, if anybody wants to know."""
        kind = head.get(b"content-type") or b""
        self.is_stream = kind.startswith(b"text/event-stream")
        self.meter = meter_for(kind, head.get(b"content-encoding") or b"")

    def observe(self, payload: bytes, loop: asyncio.AbstractEventLoop) -> None:
        """Body bytes were written downstream."""
        if not payload:
            return
        if self.first_byte is None:
            self.first_byte = loop.time()
        self.bytes_out += len(payload)
        meter = self.meter
        if meter is None:
            return
        try:
            meter.feed(payload)
        except Exception as error:
            self._switch_off(error)

    def _switch_off(self, error: Exception) -> None:
        """An observer that fails is not asked again; the answer goes on, and its record is an estimate."""
        log.error("metering failed", extra={"id": self.id}, exc_info=error)
        self.runtime.services.metrics.count("meter_failures")
        self.meter = None

    def looks_whole(self, head: AnswerHead) -> bool:
        """For an answer that ends with its connection: whether its content says that it is finished."""
        if head.status != 200 or self.meter is None:
            return True
        kind = (head.get(b"content-type") or b"").lower()
        if kind.partition(b";")[0].strip() not in (b"text/event-stream", b"application/json"):
            return True
        return self.finish_metering().terminal

    def finish_metering(self) -> Metered:
        """What was learned from the answer's body."""
        if self.metered is None:
            self.metered = self._learned()
        return self.metered

    def _learned(self) -> Metered:
        if self.meter is None:
            return Metered()
        try:
            return self.meter.finish()
        except Exception as error:
            self._switch_off(error)
            return Metered()
