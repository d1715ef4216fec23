"""Writes usage records to the log, one line each."""

import logging
from collections.abc import Sequence

import orjson

from proxy.sinks.sink import Delivery

LOGGER = "proxy.usage"


class LogLines:
    """To the logger `proxy.usage`, the record's fields and counts as the line's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._log = logging.getLogger(LOGGER)

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        for line in lines:
            record = orjson.loads(line)
            counts = record.pop("usage", {})
            self._log.info("usage", extra=record | counts)
        return Delivery()

    async def close(self) -> None:
        pass
