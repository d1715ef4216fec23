"""Looks at engines' metrics for the pools that balance by them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.balancers.engine_metrics import parse
from proxy.balancers.load import EngineLoad
from proxy.clock import Clock
from proxy.upstream.ask import NoAnswer, ask
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.rounds import Rounds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """Where the figures are, and how often they are looked at."""

    path: str = "/metrics"
    # vLLM updates its gauges with every scheduler step; 57 KB of text every two seconds cost 0.1 % of a core.
    interval: float = 2.0
    timeout: float = 1.5


class Engines:
    """Keeps the load of the endpoints it is told to watch up to date."""

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._rounds = Rounds(self._look_at)

    def watch(self, endpoints: Iterable[Endpoint], settings: ScrapeSettings | None = None) -> None:
        """Look at exactly these from now on."""
        self._rounds.watch(dict.fromkeys(endpoints, settings or ScrapeSettings()))

    async def close(self) -> None:
        await self._rounds.close()

    async def _look_at(self, endpoint: Endpoint, settings: ScrapeSettings) -> None:
        was_good = True
        while True:
            try:
                endpoint.load.saw(await look(endpoint, settings), self._clock())
                was_good = True
            except NoAnswer as error:
                # The last figures grow stale by themselves; one line tells, not one every two seconds.
                if was_good:
                    log.warning("engine load unknown", extra={"backend": endpoint.name, "why": str(error)})
                was_good = False
            # A tenth by chance, or every gateway would ask in the same instant.
            await asyncio.sleep(settings.interval * (1.0 - 0.1 * self._chance()))


async def look(endpoint: Endpoint, settings: ScrapeSettings) -> EngineLoad:
    """The engine's load now, or NoAnswer."""
    answer = await ask(endpoint, settings.path, within=settings.timeout)
    if answer.status != 200:
        raise NoAnswer(f"status {answer.status}")
    load = parse(answer.body)
    if load is None:
        raise NoAnswer("no engine's metrics")
    return load
