"""The demo engine as a process of its own, that can be stopped and killed."""

import asyncio
import signal
import subprocess
import sys

from kit.eventually import eventually
from kit.gateway import ROOT, START_PATIENCE, free_port


class Engine:
    """`async with Engine() as engine: …`"""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Engine":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        command = [sys.executable, "-m", "proxy", "demo-engine", "--port", str(self.port)]
        self._process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.DEVNULL)
        await eventually(self._accepts, "the engine listens", patience=START_PATIENCE)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True
