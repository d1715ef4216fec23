"""What outlives a reload: figures, limits, endpoints, checks, records, logs."""

import asyncio
import sys
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import IO

from proxy.adapters.memory import AdapterMemory
from proxy.clock import monotonic
from proxy.config import Config
from proxy.config.schema import AccessLog as AccessSettings
from proxy.limiters.limits import Limits
from proxy.metrics import Metrics
from proxy.runtime.background import Background
from proxy.runtime.crew import Crew
from proxy.runtime.figures import merged, snapshot
from proxy.runtime.limits import limit_specs, make_limits
from proxy.runtime.pools import connector
from proxy.runtime.records import make_outbox
from proxy.sinks.access_log import AccessLog
from proxy.sinks.outbox import Outbox
from proxy.upstream.connections import Connections
from proxy.upstream.model_lists import ModelLists
from proxy.upstream.registry import EndpointRegistry
from proxy.upstream.watch import Watch

# What a reload replaced gets so long to bring its records and lines out. What an outbox could not
# deliver by then lies in its spool, where its successor finds it.
REPLACED_SECONDS = 5.0


class Services:
    """Built once per process; closed in the opposite order."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, watch: Watch) -> None:
        self.loop = loop
        self.config = config  # what these services follow
        # Makes triggers that no text can guess; a new one costs a prefix cache once.
        self.secret = token_bytes(32)
        self.adapter_memory = AdapterMemory(self.secret)
        self.metrics = Metrics(config.metrics.latency_buckets, config.metrics.custom_labels)
        self.crew: Crew | None = None
        self.retries: Counter[str] = Counter()  # by what the attempt before ended with
        self.endpoints = EndpointRegistry(connector(partial(Connections, watch=watch, loop=loop)))
        self.limits = make_limits(config)
        self.background = Background()
        self.model_lists = ModelLists(monotonic)
        self._spool = Path(config.usage.spool.path)
        self.outbox = make_outbox(config, self._spool)
        self.access_log = open_access_log(config.logging.access, loop)
        self._lines_dropped = 0  # by access logs since closed
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start what works in the background."""
        if self.crew is not None:
            await self.crew.start()
        await self.background.follow(self.config)
        if self.outbox is not None:
            await self.outbox.start()
        if not isinstance(self.limits, Limits):
            await self.limits.start()

    async def close(self, within: float) -> None:
        """Flush what waits, within so many seconds, and let go of everything."""
        if self.crew is not None:
            await self.crew.close()
        await self.background.close()
        await self.model_lists.close()
        self.endpoints.close()
        if not isinstance(self.limits, Limits):
            await self.limits.close()
        if self.outbox is not None:
            await self.outbox.close(within)
        if self.access_log is not None:
            await self.access_log.close(within)
        if self._ending:
            await asyncio.wait(self._ending)

    async def follow(self, config: Config) -> None:
        """Take over what a reload may change in place; raises OSError and changes nothing."""
        old, access_log = self.config, open_access_log(config.logging.access, self.loop)
        self.config = config
        # Opened anew at every reload: logrotate may have moved the file.
        if self.access_log is not None:
            self._lines_dropped += self.access_log.dropped
            self._end(self.access_log.close(REPLACED_SECONDS))
        self.access_log = access_log
        if (old.usage, old.storage) != (config.usage, config.storage):
            await self._replace_outbox(make_outbox(config, self._spool))
        self.limits.configure(limit_specs(config))
        await self.background.follow(config)

    @property
    def spool_is_full(self) -> bool:
        """Whether requests must be refused, because what they use could not be recorded."""
        refuses = self.config.usage.spool.on_full == "refuse"
        return refuses and self.outbox is not None and self.outbox.is_full

    @property
    def access_lines_dropped(self) -> int:
        return self._lines_dropped + (self.access_log.dropped if self.access_log is not None else 0)

    async def exposition(self) -> bytes:
        """The page for Prometheus, of all workers where there are several."""
        own = snapshot(self.metrics)
        others = await self.crew.snapshots() if self.crew is not None else []
        return await asyncio.to_thread(merged, [own, *others])

    async def _replace_outbox(self, outbox: Outbox | None) -> None:
        """Records go to the new one from now on; both are open for a while, each with a spool file."""
        if outbox is not None:
            await outbox.start()
        if self.outbox is not None:
            self._end(_close_replaced(self.outbox, outbox))
        self.outbox = outbox

    def _end(self, closing: Coroutine[object, object, None]) -> None:
        task = self.loop.create_task(closing)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _close_replaced(old: Outbox, new: Outbox | None) -> None:
    await old.close(REPLACED_SECONDS)
    if new is not None:
        new.backlog.adopt_soon()


def open_access_log(settings: AccessSettings, loop: asyncio.AbstractEventLoop) -> AccessLog | None:
    if not settings.enabled:
        return None
    output: IO[bytes]
    if settings.output == "file":
        output = Path(settings.file.path).open("ab")  # noqa: SIM115  # the AccessLog closes it
    else:
        output = sys.stdout.buffer if settings.output == "stdout" else sys.stderr.buffer
    return AccessLog(output, loop, owns=settings.output == "file")
