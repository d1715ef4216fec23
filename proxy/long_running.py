"""An alarm for requests that have run for very long: a log line once for each, and their number.

Open connections are walked once a second, so a request pays nothing for it.
"""

import logging
from collections.abc import Iterable

from proxy.web.downstream import DownstreamConnection
from proxy.web.exchange import Exchange

log = logging.getLogger(__name__)

# A walk over 5000 connections takes half a millisecond.
LOOK_SECONDS = 1.0


class LongRunning:
    """`number` is how many run for longer than `after` seconds, as of the last look."""

    def __init__(self, after: float | None) -> None:
        self.after = after
        self.number = 0
        self._told: dict[DownstreamConnection, Exchange] = {}
        self._look_at = 0.0

    def look(self, connections: Iterable[DownstreamConnection], now: float) -> None:
        """To be called at every beat."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        told, self._told = self._told, {}
        if self.after is not None:
            for connection in connections:
                exchange = connection.exchange
                if exchange is not None and now - exchange.began >= self.after:
                    self._told[connection] = exchange
                    if told.get(connection) is not exchange:
                        _tell(exchange, now)
        self.number = len(self._told)


def _tell(exchange: Exchange, now: float) -> None:
    credential, endpoint = exchange.credential, exchange.endpoint
    log.warning(
        "a request runs for long",
        extra={
            "id": exchange.id,
            "seconds": round(now - exchange.began, 1),
            "key": credential.key_id if credential is not None else None,
            "user": credential.user_id if credential is not None else None,
            "model": exchange.route.label if exchange.route is not None else None,
            "backend": endpoint.name if endpoint is not None else None,
            "answering": exchange.answer is not None,
            "bytes": exchange.bytes_out,
        },
    )
