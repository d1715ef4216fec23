"""Keeps pools in step with what sources say.

A source that fails has not said that its backends are gone: what it said last
goes on counting. One that answers is believed, also when it names nobody. The
first look happens before the gateway is ready, if it does not take too long, the
others in the background.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from proxy.upstream.ask import NoAnswer
from proxy.upstream.discovery.base import Found, Source
from proxy.upstream.endpoint import split_url

log = logging.getLogger(__name__)

# Looks are spread by a tenth, or every gateway would ask in the same instant.
JITTER = 0.1

# A gateway that has other backends must not stay away for a source that is slow to answer.
START_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A source, the pool its backends join, and how often it is asked."""

    name: str
    source: Source
    pool: str
    interval: float


class Discovery:
    """Asks sources and reports a pool's backends whenever they have changed."""

    def __init__(
        self,
        sources: Sequence[Watched],
        *,
        takes_first: bool,
        changed: Callable[[str, tuple[Found, ...]], None],
        chance: Callable[[], float],
    ) -> None:
        self._sources = tuple(sources)
        self._takes_first = takes_first
        self._changed = changed
        self._chance = chance
        self._said: dict[str, tuple[Found, ...]] = {}  # by source; a source that never answered is missing
        self._reported: dict[str, tuple[Found, ...]] = {}
        self._failing: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, within: float = START_SECONDS) -> None:
        """Ask everybody once, report what was said in time, and go on asking."""
        firsts = [asyncio.create_task(self._look(watched)) for watched in self._sources]
        self._tasks = list(firsts)
        if firsts:
            await asyncio.wait(firsts, timeout=within)
        for pool in dict.fromkeys(watched.pool for watched in self._sources):
            self._report(pool)
        self._tasks += [
            asyncio.create_task(self._look_again(watched, first))
            for watched, first in zip(self._sources, firsts, strict=True)
        ]

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for watched in self._sources:
            await watched.source.close()

    def found(self, pool: str) -> tuple[Found, ...]:
        """What the sources say of a pool by now."""
        said = [self._said.get(watched.name) for watched in self._sources if watched.pool == pool]
        if self._takes_first:
            return next((found for found in said if found), ())
        return joined([found for found in said if found is not None])

    async def _look_again(self, watched: Watched, first: asyncio.Task[None]) -> None:
        await first
        while True:
            self._report(watched.pool)
            await asyncio.sleep(watched.interval * (1.0 - JITTER * self._chance()))
            await self._look(watched)

    async def _look(self, watched: Watched) -> None:
        try:
            self._said[watched.name] = tuple(await watched.source.find())
        except NoAnswer as error:
            self._failed(watched, str(error))
        except Exception as error:
            # A source's surprise must not end its looks, nor keep the gateway from starting.
            self._failed(watched, type(error).__name__)
        else:
            if watched.name in self._failing:
                self._failing.discard(watched.name)
                log.info("discovery answers again", extra={"source": watched.name})

    def _failed(self, watched: Watched, why: str) -> None:
        if watched.name not in self._failing:
            self._failing.add(watched.name)
            log.warning("discovery failed", extra={"source": watched.name, "pool": watched.pool, "why": why})

    def _report(self, pool: str) -> None:
        found = self.found(pool)
        if found == self._reported.get(pool, ()):
            return
        self._reported[pool] = found
        try:
            self._changed(pool, found)
        except Exception:
            # What cannot be taken over now is offered again with the next change.
            log.exception("discovered backends not taken over", extra={"pool": pool})


def joined(said: Sequence[Sequence[Found]]) -> tuple[Found, ...]:
    """All backends, each address once, as the first source that names it describes it."""
    by_address: dict[tuple[str, str, int, bytes], Found] = {}
    for found in said:
        for one in found:
            by_address.setdefault(split_url(one.url), one)
    return tuple(by_address.values())


def with_names(found: Sequence[Found], taken: Container[str]) -> tuple[tuple[str, Found], ...]:
    """The backends with a name each: their own if nobody has it yet, else their address."""
    named: dict[str, Found] = {}
    for one in found:
        _, host, port, path = split_url(one.url)
        address = f"{host}:{port}{path.decode('ascii')}"
        name = one.name if one.name and one.name not in named and one.name not in taken else address
        named.setdefault(name, one)
    return tuple(named.items())
