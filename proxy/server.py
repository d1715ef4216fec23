"""One serving process: start, reload, drain, end.

Start: services, runtime, doors, READY. SIGHUP builds a new runtime and swaps it
in. SIGTERM drains: no new connections, running streams go on up to
`shutdown_timeout`, what remains is ended honestly, records are flushed. A second
SIGTERM does not wait.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import http_parser, web

from proxy import clock
from proxy.config import Config, ConfigError, needs_restart
from proxy.door import Door, limits_of, load_certificates, tls_context
from proxy.listeners import Sockets, open_sockets
from proxy.logs import LoopTrouble, follow_logging, set_up_logging
from proxy.long_running import LongRunning
from proxy.notify import notify, watchdog_seconds
from proxy.process import end_early, end_loading, end_of_threads, loop_factory, ready_text
from proxy.pulse import BEAT_SECONDS, Pulse
from proxy.runtime import Holder, Runtime, Services
from proxy.runtime.crew import Crew
from proxy.runtime.figures import snapshot
from proxy.runtime.gauges import export
from proxy.upstream.watch import Watch
from proxy.vitals import export_vitals
from proxy.web.app import admin_routes, make_admin_app, make_app, make_metrics_app

log = logging.getLogger(__name__)

Reread = Callable[[], Config]
Tell = Callable[[str], None]
Beside = Callable[[], AbstractAsyncContextManager[None]]
MakeCrew = Callable[[Callable[[], bytes]], Crew]

# After the running exchanges were ended by force, their handlers get so long to unwind.
UNWIND_SECONDS = 2.0

# How long the records that still wait may take to reach the disk.
FLUSH_SECONDS = 5.0
FORCED_FLUSH_SECONDS = 0.5  # after a second signal


class Gateway:
    """One serving process. `reread` returns the configuration as it is on disk now, for SIGHUP.

    `tell` is whom it reports to, in the words of sd_notify(3); `crew` makes its place among others.
    """

    def __init__(
        self, config: Config, reread: Reread, tell: Tell = notify, crew: MakeCrew | None = None
    ) -> None:
        self._config = config
        self._reread = reread
        self._tell = tell
        self._stopping, self._forced = asyncio.Event(), asyncio.Event()
        self._reloading = asyncio.Lock()
        self._background: set[asyncio.Task[bool]] = set()
        self._watchdog_due = 0.0
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.loop)
        self.services = Services(config, self.loop, self.watch)
        if crew is not None:
            self.services.crew = crew(lambda: snapshot(self.services.metrics))
        self.holder = Holder()
        self.long_running = LongRunning(config.logging.long_running_after)
        self.tls = tls_context(config.server.tls)
        self.doors: list[Door] = []
        self.pulse: Pulse

    # -- life --------------------------------------------------------------

    async def run(self, sockets: Sockets, announce: Callable[[], None] = lambda: None) -> None:
        """Serve until `end`."""
        async with self._reloading:
            await self.start(sockets)
        announce()
        self._tell("READY=1")
        end_loading()
        await self._stopping.wait()
        await self.stop()

    async def start(self, sockets: Sockets) -> None:
        """Build everything and accept connections."""
        self.loop.set_exception_handler(LoopTrouble())
        _warn_without_c_parser()
        self.holder.put(await Runtime.build(self._config, self.services, None))
        await self.services.start()
        export(self.services, self.holder)
        self._beat()
        export_vitals(self.services.metrics, self.doors, self.pulse, self.long_running)
        metrics = self._config.metrics
        shows_metrics = metrics.enabled and not sockets.metrics
        pages = self._admin_routes()
        app = make_app(
            metrics_path=metrics.path if shows_metrics else None,
            admin_routes=() if sockets.admin else pages,
        )
        limits = limits_of(self._config.server)
        main = Door(app, self.holder, self.watch, limits)
        self.doors.append(main)
        if sockets.metrics:
            door = Door(make_metrics_app(metrics.path), self.holder, self.watch, limits)
            self.doors.append(door)
            await door.open(sockets.metrics)
        if sockets.admin:
            door = Door(make_admin_app(pages), self.holder, self.watch, limits)
            self.doors.append(door)
            await door.open(sockets.admin)
        await main.open(sockets.main, self.tls)

    def _admin_routes(self) -> list[web.RouteDef]:
        settings = self._config.admin
        if not settings.enabled:
            return []
        return admin_routes(settings, self.runtime.key_services.database(settings.db_path))

    async def stop(self) -> None:
        """Drain, flush, close; see the module's docstring."""
        self._tell("STOPPING=1")
        for door in self.doors:
            await door.drain()
        await self._idle(self.runtime.config.server.shutdown_timeout, until_forced=True)
        for door in self.doors:
            door.abort()
        await self._idle(UNWIND_SECONDS)
        for door in self.doors:
            await door.close()
        if self._background:  # a reload under way holds what it has opened until it is through
            await asyncio.wait(self._background, timeout=UNWIND_SECONDS)
        await self.holder.close()
        await self.services.close(FORCED_FLUSH_SECONDS if self._forced.is_set() else FLUSH_SECONDS)
        self.pulse.stop()
        self.watch.close()

    async def reload(self) -> bool:
        """Take the configuration as it is now; on any problem keep the old one and say why."""
        async with self._reloading:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={int(clock.monotonic() * 1_000_000)}")
            try:
                return await self._take_over()
            except (ConfigError, OSError, ValueError) as error:
                log.error(
                    "the new configuration was refused, the old one stays", extra={"reason": str(error)}
                )
                return False
            finally:
                self._tell("READY=1")

    async def _take_over(self) -> bool:
        config = await asyncio.to_thread(self._reread)
        fresh_tls = tls_context(self._config.server.tls)  # so that broken files change nothing
        runtime = await Runtime.build(config, self.services, self.runtime)
        try:
            await self.services.follow(config)
        except OSError:
            runtime.retire()
            raise
        self.holder.swap(runtime)
        if self.tls is not None and fresh_tls is not None:
            load_certificates(self.tls, self._config.server.tls)
        for door in self.doors:
            door.limits = limits_of(config.server)
        self.long_running.after = config.logging.long_running_after
        for path in needs_restart(self._config, config):
            log.warning("this change needs a restart", extra={"key": path})
        log.info("reloaded", extra={"generation": runtime.generation})
        follow_logging(config.log)
        return True

    @property
    def runtime(self) -> Runtime:
        return self.holder.runtime

    # -- what it can be told -------------------------------------------------

    def follow_signals(self) -> None:
        """SIGTERM and SIGINT end it, a second one at once; SIGHUP reloads."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._end_or_hurry)
        self.loop.add_signal_handler(signal.SIGHUP, self.reload_soon)

    def end(self) -> None:
        """Begin to drain."""
        self._stopping.set()

    def end_at_once(self) -> None:
        """Wait for nobody."""
        log.warning("ending at once")
        self._stopping.set()
        self._forced.set()

    def reload_soon(self) -> None:
        # One that runs, and one that will see what changed meanwhile, are enough.
        if not self._stopping.is_set() and len(self._background) < 2:
            task = self.loop.create_task(self.reload())
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    def _end_or_hurry(self) -> None:
        if self._stopping.is_set():
            self.end_at_once()
        self.end()

    # -- inside ------------------------------------------------------------

    async def _idle(self, within: float, *, until_forced: bool = False) -> None:
        """Wait until no request runs, or the time is over, or a second signal comes."""
        ends = self.loop.time() + within
        while any(door.is_busy for door in self.doors) and self.loop.time() < ends:
            if until_forced and self._forced.is_set():
                return
            await asyncio.sleep(0.02)

    def _beat(self) -> None:
        """Begin to look around regularly, at least three times in each of systemd's watchdog periods."""
        period = watchdog_seconds()
        every = min(BEAT_SECONDS, period / 3) if period is not None else BEAT_SECONDS
        self.pulse = Pulse(self.loop, [self._look_at_requests], every)
        if period is not None:
            self.pulse.on_beat.append(lambda: self._feed_watchdog(period / 3))

    def _look_at_requests(self) -> None:
        now = self.loop.time()
        for door in self.doors[:1]:
            self.long_running.look(door.connections, now)

    def _feed_watchdog(self, every: float) -> None:
        """Tell the service manager that we live, from the loop itself: a loop that hangs falls silent."""
        now = self.loop.time()
        if now >= self._watchdog_due:
            self._watchdog_due = now + every
            self._tell("WATCHDOG=1")


def serve(config: Config, reread: Reread, beside: Beside = contextlib.nullcontext) -> int:
    """Run a gateway until a signal ends it, within the context `beside`; returns the exit status."""
    set_up_logging(config.log)
    signal.signal(signal.SIGTERM, end_early)
    sockets = open_sockets(config)
    try:
        with asyncio.Runner(loop_factory=loop_factory(os.environ)) as runner:
            runner.run(_run(config, reread, sockets, beside))
    finally:
        sockets.remove_paths()
    return end_of_threads()


async def _run(config: Config, reread: Reread, sockets: Sockets, beside: Beside) -> None:
    async with beside():
        gateway = Gateway(config, reread)
        gateway.follow_signals()
        await gateway.run(sockets, lambda: print(ready_text(config, sockets), flush=True))


def _warn_without_c_parser() -> None:
    # Client traffic is read by our own parser; aiohttp's would still serve checks and webhooks.
    if getattr(http_parser, "HttpRequestParserC", None) is None:
        print("warning: aiohttp runs without its C extensions; install a wheel with them", file=sys.stderr)
        log.warning("aiohttp runs without its C extensions: it is slower and reads some bytes differently")
