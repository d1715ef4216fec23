"""The processes of a measurement, and what they use: CPU time and memory, from the kernel."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from time import clock_gettime
from typing import Any

from proxy.bench import servers
from proxy.bench.servers import CPU_CLOCK, configured
from rig.engine import addresses

HERE = Path(__file__).resolve().parent.parent


class Gateway:
    """A running gateway, with its workers where it has some."""

    def __init__(self, url: str, pid: int) -> None:
        self.port = int(url.rpartition(":")[2])
        self.pid = pid

    def pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes and their threads."""
        return sum(clock_gettime((~pid << 3) | CPU_CLOCK) for pid in self.pids())

    def resident(self) -> int:
        """Bytes of memory."""
        return sum(status(pid, "VmRSS") for pid in self.pids())

    def peak(self) -> int:
        """The most bytes that were resident since `forget_peak`."""
        return sum(status(pid, "VmHWM") for pid in self.pids())

    def forget_peak(self) -> None:
        for pid in self.pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): VmHWM begins anew


def status(pid: int, field: str) -> int:
    """A process's memory in bytes, by the kernel's name for it (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


@asynccontextmanager
async def gateway(folder: Path, settings: Mapping[str, Any]) -> AsyncIterator[Gateway]:
    """`llmproxy run` with these settings, on a port that is free, from ready to ended."""
    server = {"listen": "127.0.0.1:0", **settings["server"]}
    async with configured({**settings, "server": server}, folder) as running:
        yield Gateway(running.url, running.pid)


@asynccontextmanager
async def engine(count: int = 1) -> AsyncIterator[list[str]]:
    """The URLs of an upstream with so many addresses."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rig.engine", str(count)),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        yield [f"http://{address}:{port}" for address in addresses(count)]
    finally:
        process.terminate()
        await process.wait()


def everything_on(folder: Path, backends: list[str], **more: Any) -> dict[str, Any]:
    """What `llmproxy bench` switches on, for the key 0 and bodies of any size; `more` comes over it."""
    named = [{"name": f"b{number}", "url": url} for number, url in enumerate(backends)]
    settings = servers.everything_on(named, digest(0), folder)
    server = {**settings["server"], "max_body_size": "100MiB", **more.pop("server", {})}
    return {**settings, "server": server, "health_check": {"enabled": False}, **more}


def key(number: int) -> str:
    return f"sk-bench-{number:040d}"


def digest(number: int) -> str:
    """What a configuration holds of that key."""
    return sha256(key(number).encode()).hexdigest()


async def settled(figure: Callable[[], float], *, tries: int = 20) -> float:
    """The figure, once it no longer falls."""
    last = figure()
    for _ in range(tries):
        await asyncio.sleep(0.25)
        now = figure()
        if now >= last * 0.98:
            return now
        last = now
    return last


def allow_open_files() -> None:
    """Let this process, and those it starts, open as many files as the system allows."""
    _, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (hard, hard))
