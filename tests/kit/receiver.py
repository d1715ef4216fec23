"""A webhook's other end: takes usage records and keeps them in the order in which they came."""

import json
from typing import Any

from kit.link import PATIENCE
from kit.upstream import Connection, ScriptedUpstream
from kit.wire import Request, answer

Record = dict[str, Any]


class Receiver(ScriptedUpstream):
    """Answers every POST with 200; `records` holds what was in them, batches taken apart."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__(self._take, port=port)
        self.records: list[Record] = []
        self.bodies: list[bytes] = []

    async def _take(self, connection: Connection, request: Request) -> None:
        self.bodies.append(request.raw)
        content = json.loads(request.body)
        self.records += content if isinstance(content, list) else [content]
        connection.write(answer(b"{}"))
        self._changed.set()

    async def wait_records(self, number: int, patience: float = PATIENCE * 2) -> list[Record]:
        """Wait until records with so many different ids have come."""
        await self._wait(lambda: len(self.ids) >= number, patience, f"{number} records")
        return self.records

    @property
    def ids(self) -> set[str]:
        return {record["id"] for record in self.records}
