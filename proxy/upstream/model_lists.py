"""What the pools say they serve, asked when somebody wants to know.

Nothing is asked in the background: an upstream that nobody lists models of never
sees a request that no client sent. Answers are kept for a while, and a list that
cannot be fetched again is better than none.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable

import orjson

from proxy.clock import Clock
from proxy.upstream.ask import NoAnswer, ask
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.models import Json
from proxy.upstream.pool import Pool

log = logging.getLogger(__name__)

# A list is read by a person or a client that starts; half a minute old is new enough.
MAX_AGE_SECONDS = 30.0

# An unknown model asks for fresh lists, but a client that repeats it must not make us a nuisance.
MIN_AGE_SECONDS = 2.0

TIMEOUT_SECONDS = 3.0

# OpenRouter, the longest list known, has some 400.
MAX_MODELS = 4096


class ModelLists:
    """The lists of all endpoints, each with the time it was asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lists: dict[Endpoint, tuple[float, tuple[Json, ...]]] = {}
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}

    def known(self, pool: Pool) -> tuple[Json, ...]:
        """What the pool's endpoints said last, each model once."""
        models: dict[object, Json] = {}
        for endpoint in pool.endpoints:
            for model in self._lists.get(endpoint, (0.0, ()))[1]:
                models.setdefault(model["id"], model)
        return tuple(models.values())

    async def refresh(self, pools: Iterable[Pool], max_age: float = MAX_AGE_SECONDS) -> None:
        """Ask all endpoints that may answer and whose list is older than `max_age`."""
        now = self._clock()
        wanted = [endpoint for pool in pools for endpoint in pool.endpoints if endpoint.is_up]
        for endpoint in wanted:
            asked = self._lists.get(endpoint)
            if endpoint not in self._asking and (asked is None or now - asked[0] >= max_age):
                self._asking[endpoint] = asyncio.create_task(self._ask(endpoint))
        running = [task for endpoint in wanted if (task := self._asking.get(endpoint)) is not None]
        if running:
            # Shielded by wait(): a client that leaves does not take the answer from the others.
            await asyncio.wait(running)

    def forget_others(self, endpoints: Collection[Endpoint]) -> None:
        """Keep the lists of these endpoints only."""
        for endpoint in self._lists.keys() - set(endpoints):
            del self._lists[endpoint]

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            models = await _fetch(endpoint)
        except NoAnswer as error:
            log.info("model list not fetched", extra={"backend": endpoint.name, "why": str(error)})
            models = self._lists.get(endpoint, (0.0, ()))[1]
        finally:
            del self._asking[endpoint]
        self._lists[endpoint] = self._clock(), models


async def _fetch(endpoint: Endpoint) -> tuple[Json, ...]:
    answer = await ask(endpoint, "/v1/models", within=TIMEOUT_SECONDS)
    if answer.status != 200:
        raise NoAnswer(f"status {answer.status}")
    try:
        entries = orjson.loads(answer.body)["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise NoAnswer("not a list of models") from error
    if not isinstance(entries, list):
        raise NoAnswer("not a list of models")
    return tuple(e for e in entries[:MAX_MODELS] if isinstance(e, dict) and isinstance(e.get("id"), str))
