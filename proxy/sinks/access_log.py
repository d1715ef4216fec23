"""One line per request, written beside the request path.

Lines are gathered and written by a thread, because a pipe whose reader sleeps
(journald under load, a full disk) must not hold up a stream.
"""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from select import PIPE_BUF
from typing import IO

log = logging.getLogger(__name__)

# A line is some 400 bytes: this is half a minute of 500 requests/s with nobody reading.
MAX_WAITING_BYTES = 8 * 1024 * 1024

FLUSH_SECONDS = 0.2


class AccessLog:
    """Takes finished lines; `dropped` counts those that found no room."""

    def __init__(self, output: IO[bytes], loop: asyncio.AbstractEventLoop, *, owns: bool = False) -> None:
        self._output = output
        self._owns = owns
        self._loop = loop
        self._lines: list[bytes] = []
        self._taken_bytes = 0  # counted by the loop
        self._written_bytes = 0  # counted by the writer, for neither may count for the other
        self._timer: asyncio.TimerHandle | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="access-log")
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Take one line, with its line end."""
        if self._taken_bytes - self._written_bytes > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._lines.append(line)
        self._taken_bytes += len(line)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._flush)

    async def close(self, within: float) -> None:
        """Write what waits; an output that hangs is waited for so many seconds. No `put` may follow."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        last = self._writer.submit(self._end)
        self._writer.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(last)], timeout=within)

    def _flush(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            self._writer.submit(self._write, b"".join(lines))

    def _write(self, data: bytes) -> None:
        try:
            # A file takes it in one piece; in a pipe larger ones would mix with another worker's.
            for piece in [data] if self._owns else in_pieces(data):
                self._output.write(piece)
                self._output.flush()
        except (OSError, ValueError) as exc:
            log.warning("access lines could not be written", extra={"reason": str(exc)})
        finally:
            self._written_bytes += len(data)

    def _end(self) -> None:
        with suppress(OSError, ValueError):  # what could not be written was said by `_write`
            if self._owns:
                self._output.close()


def in_pieces(data: bytes) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once; a line that is longer goes alone."""
    start = 0
    while len(data) - start > PIPE_BUF:
        end = data.rfind(b"\n", start, start + PIPE_BUF) + 1 or data.find(b"\n", start) + 1 or len(data)
        yield data[start:end]
        start = end
    yield data[start:]
