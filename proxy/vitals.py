"""How the process itself is doing, for the metrics; read at each scrape."""

import asyncio
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time

from proxy.clock import wall
from proxy.door import Door
from proxy.logs import lines_dropped
from proxy.long_running import LongRunning
from proxy.metrics import Merge, Metrics
from proxy.pulse import Pulse


def export_vitals(metrics: Metrics, doors: Sequence[Door], pulse: Pulse, long_running: LongRunning) -> None:
    """Add them to the metrics."""
    started = wall()

    def gauge(name: str, about: str, read: Callable[[], float], merge: Merge = "sum") -> None:
        metrics.gauge(name, about, (), lambda: [((), float(read()))], merge=merge)

    def counter(name: str, about: str, read: Callable[[], float]) -> None:
        metrics.gauge(name, about, (), lambda: [((), float(read()))], counter=True)

    gauge("llmproxy_inflight", "Requests being served", lambda: sum(door.busy for door in doors))
    gauge("llmproxy_connections", "Open connections", lambda: sum(len(door.connections) for door in doors))
    gauge(
        "llmproxy_long_running_requests",
        "Requests that run for longer than logging.long_running_after",
        lambda: long_running.number,
    )
    gauge("llmproxy_event_loop_lag_seconds", "The largest delay of late", lambda: pulse.lag, "max")
    gauge("llmproxy_event_loop_tasks", "Tasks under way", lambda: len(asyncio.all_tasks()))
    counter("llmproxy_log_lines_dropped", "Log lines that nobody took", lines_dropped)
    gauge("llmproxy_workers", "Processes that serve", lambda: 1)
    gauge("llmproxy_memory_blocks", "Blocks of memory in which something lives", sys.getallocatedblocks)
    gauge("process_resident_memory_bytes", "Resident memory", _resident)
    gauge("process_open_fds", "Open files", lambda: len(os.listdir("/proc/self/fd")) - 1)  # noqa: PTH208
    gauge("process_max_fds", "Files that may be open", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    gauge("process_start_time_seconds", "When it started", lambda: started, "min")
    counter("process_cpu_seconds", "CPU time used", process_time)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
