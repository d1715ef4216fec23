"""What became of bytes that two parsers might read differently.

A connection carries the bytes under test and, right behind them, a request
nobody should ever see if the bytes were refused. The verdict is reached from
the answers and from what the scripted upstream recorded.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from kit.client import RawClient
from kit.link import PATIENCE, Ended, Silent
from kit.wire import Response

SMUGGLED_TARGET = b"/v1/smuggled"
SMUGGLED = b"GET " + SMUGGLED_TARGET + b" HTTP/1.1\r\nHost: h\r\n\r\n"

# Refusals of what cannot be read: the client's fault, a wrong version, or an expectation not met.
REFUSALS = frozenset({400, 404, 405, 408, 411, 413, 414, 417, 431, 501, 505})


@dataclass(slots=True)
class Verdict:
    """All answers that came on one connection, and how it ended (fin, rst, or open)."""

    answers: list[Response] = field(default_factory=list)
    ending: str = "open"
    leftover: bytes = b""

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def is_refused(self) -> bool:
        """Nothing but one refusal (or a bare close), and the connection is over."""
        if self.ending == "open" or self.leftover:
            return False
        return not self.answers or (len(self.answers) == 1 and self.answers[0].status in REFUSALS)


async def verdict_on(
    port: int,
    raw: bytes,
    *,
    methods: tuple[bytes, ...] = (),
    patience: float = PATIENCE,
    half_close: bool = False,
) -> Verdict:
    """Send the bytes and read until the connection ends or stays silent for `patience` seconds."""
    verdict = Verdict()
    async with await RawClient.connect(port) as client:
        client.write(raw)
        if half_close:
            with contextlib.suppress(OSError, RuntimeError):
                client.half_close()
        asked = iter(methods)
        try:
            async with asyncio.timeout(PATIENCE * 3):
                while True:
                    verdict.answers.append(await client.read_response(next(asked, b"GET"), patience))
                    if not verdict.answers[-1].is_complete:
                        break
        except (Ended, Silent) as over:
            verdict.leftover = over.partial
        verdict.ending = client.ending or "open"
    return verdict
