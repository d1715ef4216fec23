"""Notices servers that take requests and answer nobody: stopped, swapping, or cut off without a word.

The kernel of a stopped process goes on taking connections and requests, so
that nothing fails until a time-out ends that long prompts need as well. What
tells the two apart is a question: a server that works on a prompt answers a
check at once, with whatever status, and one that stands still does not. So when
requests have heard nothing for half a connect time-out, and nothing else came
from that server either, it is asked, and given the other half for any byte at
all. If there is none, it gets no new requests until it speaks again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.upstream.ask import NoAnswer, ask
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.rounds import Rounds

log = logging.getLogger(__name__)

# A server in the same rack may have a connect time-out of 100 ms; to answer a check takes a busy one longer.
MIN_PATIENCE_SECONDS = 0.5

# Between two questions to a server that did not answer the last: its recovery is found within this.
AGAIN_SECONDS = 1.0
JITTER = 0.1

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class SentinelSettings:
    """What is asked, and the seconds within which it is to be known that a server stands still."""

    within: float
    path: str = "/health"
    method: str = "GET"

    @property
    def patience(self) -> float:
        """Seconds of silence before the question, and again for its answer."""
        return max(self.within / 2, MIN_PATIENCE_SECONDS)


class Sentinel:
    """Watches over the endpoints it is told of."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._rounds = Rounds(self._guard)

    def watch(self, wanted: Mapping[Endpoint, SentinelSettings]) -> None:
        """Watch over exactly these from now on; those whose settings stay the same go on undisturbed."""
        self._rounds.watch(wanted)

    async def close(self) -> None:
        await self._rounds.close()

    async def _guard(self, endpoint: Endpoint, settings: SentinelSettings) -> None:
        endpoint.connections.patience = settings.patience
        try:
            while True:
                await endpoint.connections.silence()
                if not await lives(endpoint, settings):
                    await self._shun(endpoint, settings)
        finally:
            endpoint.connections.patience = _NEVER

    async def _shun(self, endpoint: Endpoint, settings: SentinelSettings) -> None:
        """Keep new requests away until it answers."""
        log.warning("upstream does not respond", extra={"backend": endpoint.name})
        endpoint.responds(False)
        try:
            is_alive = False
            while not is_alive:
                await asyncio.sleep(AGAIN_SECONDS * (1.0 - JITTER * self._chance()))
                is_alive = await lives(endpoint, settings)
            log.info("upstream responds again", extra={"backend": endpoint.name})
        finally:
            endpoint.responds(True)


async def lives(endpoint: Endpoint, settings: SentinelSettings) -> bool:
    """Whether any byte comes from it, the answer to a question or any other."""
    asked_at = asyncio.get_running_loop().time()
    try:
        await ask(endpoint, settings.path, within=settings.patience, method=settings.method)
    except NoAnswer:
        return endpoint.connections.heard >= asked_at
    return True
