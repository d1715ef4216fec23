"""The workers of one gateway, as each of them sees the others: by their figures.

Each worker answers on a Unix socket in a folder that only this gateway's user
can enter; whoever connects gets a snapshot and the end. A worker that does not
answer at once is left out: it is starting, ending, or its loop is held up.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

# A loop that needs longer than this to send some kilobytes is stuck; the scrape goes on without it.
ANSWER_SECONDS = 1.0

# Behind a snapshot, which is one line of JSON: without it the worker died over the answer.
END = b"\n"


class Crew:
    """`snapshot` gives this worker's own figures; `number` is its place among `size`."""

    def __init__(self, folder: Path, number: int, size: int, snapshot: Callable[[], bytes]) -> None:
        self._paths = [folder / f"{worker}.sock" for worker in range(size)]
        self._own = self._paths[number]
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._own.unlink(missing_ok=True)  # a predecessor in this place may have left it
        self._server = await asyncio.start_unix_server(self._answer, self._own)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._own.unlink(missing_ok=True)

    async def snapshots(self) -> list[bytes]:
        """The others' figures."""
        others = (path for path in self._paths if path != self._own)
        found = await asyncio.gather(*map(_ask, others))
        return [content for content in found if content]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self._snapshot() + END)
            async with asyncio.timeout(ANSWER_SECONDS):
                await writer.drain()
        except OSError:  # TimeoutError among them: whoever asked is gone
            writer.transport.abort()
        finally:
            writer.close()


async def _ask(path: Path) -> bytes:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                content = await reader.read()
            finally:
                writer.close()
    except OSError as error:
        log.info("a worker did not give its figures", extra={"why": str(error) or type(error).__name__})
        return b""
    return content if content.endswith(END) else b""
