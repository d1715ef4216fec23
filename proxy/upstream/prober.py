"""Active health checks: every endpoint is asked at its interval, whether it gets requests or not.

A server that is down is asked twice as often, and once it answers the checks
that are still missing follow quickly, so that it serves again within one
interval of its recovery, however many good checks are wanted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.clock import Clock
from proxy.upstream.ask import NoAnswer, ask
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.rounds import Rounds

log = logging.getLogger(__name__)

# Checks are spread by a tenth, or every gateway would ask a server in the same instant.
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What is asked, how often, and which answers are good."""

    path: str = "/health"
    method: str = "GET"
    interval: float = 10.0
    timeout: float = 3.0
    expected: frozenset[int] = frozenset((200,))


class Prober:
    """Checks the endpoints it is told to watch."""

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._rounds = Rounds(self._check_on)

    def watch(self, wanted: Mapping[Endpoint, CheckSettings]) -> None:
        """Check exactly these from now on; those whose settings stay the same go on undisturbed."""
        self._rounds.watch(wanted)

    async def close(self) -> None:
        await self._rounds.close()

    async def _check_on(self, endpoint: Endpoint, settings: CheckSettings) -> None:
        while True:
            why = await probe(endpoint, settings)
            try:
                self._report(endpoint, why)
            except Exception:
                # A check that cannot be recorded must not end all checks of this endpoint.
                log.exception("health check failed", extra={"backend": endpoint.name})
            pause = pause_after(endpoint, settings, good=why is None)
            await asyncio.sleep(pause * (1.0 - JITTER * self._chance()))

    def _report(self, endpoint: Endpoint, why: str | None) -> None:
        if not endpoint.vitals.checked(why is None, self._clock()):
            return
        if why is None:
            log.info("upstream is up again", extra={"backend": endpoint.name})
        else:
            log.warning("upstream is down", extra={"backend": endpoint.name, "why": why})


async def probe(endpoint: Endpoint, settings: CheckSettings) -> str | None:
    """Check once: None if all is well, else what is wrong."""
    try:
        answer = await ask(endpoint, settings.path, within=settings.timeout, method=settings.method)
    except NoAnswer as error:
        return str(error)
    return None if answer.status in settings.expected else f"status {answer.status}"


def pause_after(endpoint: Endpoint, settings: CheckSettings, *, good: bool) -> float:
    """Seconds until the next check."""
    checks = endpoint.vitals.checks
    if checks.is_up:
        return settings.interval
    # Half an interval to find the recovery, the other half for all the checks that confirm it.
    return settings.interval / 2 / (checks.settings.healthy if good else 1)
