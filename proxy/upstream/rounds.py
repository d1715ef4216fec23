"""Background work for each endpoint: one task each, as long as it is wanted."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

from proxy.upstream.endpoint import Endpoint

S = TypeVar("S")


class Rounds(Generic[S]):
    """Runs `work(endpoint, settings)` for exactly the endpoints it is told to watch."""

    def __init__(self, work: Callable[[Endpoint, S], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._tasks: dict[Endpoint, tuple[S, asyncio.Task[None]]] = {}

    def watch(self, wanted: Mapping[Endpoint, S]) -> None:
        """From now on these; those whose settings stay the same go on undisturbed."""
        for endpoint, (settings, task) in list(self._tasks.items()):
            if wanted.get(endpoint) != settings:
                task.cancel()
                del self._tasks[endpoint]
        for endpoint, settings in wanted.items():
            if endpoint not in self._tasks:
                task = asyncio.create_task(self._work(endpoint, settings))
                self._tasks[endpoint] = settings, task

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
