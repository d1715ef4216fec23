"""The processes that are measured: the demo engine and a gateway, as `llmproxy` starts them."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import clock_gettime
from typing import Any

from proxy.bench.client import BenchError

# A start takes some tenths of a second; one that reads 100,000 keys on a busy machine, a minute.
START_SECONDS = 120.0

# Streams are not waited for at the end: nobody reads them any more.
END_SECONDS = 5.0

# Linux makes the number of a process's CPU clock from its id and this (CPUCLOCK_SCHED).
CPU_CLOCK = 2

_URL = re.compile(r"listens on (https?://\S+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A running process of ours."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time it has used, its threads included: the kernel's clock for that process."""
        return clock_gettime((~self.pid << 3) | CPU_CLOCK)


@asynccontextmanager
async def started(*arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """`llmproxy ARGUMENTS`, from its ready line to the end of the context."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", *arguments),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C ends the benchmark, which ends them
    )
    try:
        yield Server(await _ready_url(process), process.pid)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _ready_url(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while line := await process.stdout.readline():
                if found := _URL.search(line.decode()):
                    return found[1]
    raise BenchError("a server of the benchmark did not start; what it said stands above")


def everything_on(backends: Sequence[Mapping[str, Any]], key_sha256: str, folder: Path) -> dict[str, Any]:
    """What a metered gateway has switched on: keys, limits, usage records, metrics and access lines."""
    plenty = 1_000_000
    keys = [{"sha256": key_sha256, "name": "bench"}]
    return {
        "server": {"listen": "127.0.0.1:0", "shutdown_timeout": 0},
        "log": {"level": "warning", "format": "text"},
        "auth": {"pipeline": [{"name": "bench", "type": "static", "keys": keys}]},
        "backends": backends,
        "rate_limit": {
            "global": {"requests_per_second": plenty, "max_concurrent": plenty},
            "per_key": {"requests_per_second": plenty, "tokens_per_minute": 1000 * plenty},
        },
        "usage": {
            "reporters": [{"name": "bench", "type": "builtin", "path": str(folder / "usage.db")}],
            "spool": {"path": str(folder / "spool")},
        },
        "logging": {"access": {"output": "file", "file": {"path": str(folder / "access.log")}}},
    }


@asynccontextmanager
async def gateway(upstream: str, upstream_key: str, key_sha256: str, folder: Path) -> AsyncIterator[Server]:
    """A gateway in front of the upstream, with everything on."""
    backend = {"name": "upstream", "url": upstream, "api_key": upstream_key}
    async with configured(everything_on([backend], key_sha256, folder), folder) as server:
        yield server


@asynccontextmanager
async def configured(settings: Mapping[str, Any], folder: Path) -> AsyncIterator[Server]:
    """A gateway with these settings, which are written to this folder."""
    async with started("run", "-c", str(_written(settings, folder))) as server:
        yield server


def _written(settings: Mapping[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "llmproxy.json"
    file.touch(mode=0o600)  # it may hold the upstream's key
    file.write_text(json.dumps(settings), encoding="utf-8")
    return file
