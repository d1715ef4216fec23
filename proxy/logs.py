"""The program's own log: an event in words and facts as fields, one line each.

What came from outside is escaped in either format, so that a header cannot
write a log line of its own.
"""

import logging
import sys
from asyncio import AbstractEventLoop
from datetime import UTC, datetime
from errno import EMFILE, ENFILE
from io import FileIO
from logging import StreamHandler
from queue import Full, Queue
from threading import Thread
from time import monotonic, sleep
from types import TracebackType
from typing import Any

import orjson

from proxy.config.schema import Log

log = logging.getLogger(__name__)

# What every LogRecord has; anything else came in through `extra`.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message",
    "asctime",
    "taskName",
}

# A fact longer than this is not a fact but somebody's input.
MAX_FACT_CHARS = 2000

# Lines that wait for an output nobody reads: at some 300 bytes each, 3 MB.
MAX_WAITING_LINES = 10_000

# Between two lines that say the same of a shortage.
QUIET_SECONDS = 10.0

# At the end of the process, for what still waits.
FLUSH_SECONDS = 1.0


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return orjson.dumps(_facts(record, self), default=str).decode()


class TextLines(logging.Formatter):
    """Time, level, event, and the facts as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record, self)
        head = f"{facts.pop('time')} {str(facts.pop('level')).upper():7} {_plain(facts.pop('event'))}"
        rest = " ".join(f"{name}={_plain(value)}" for name, value in facts.items() if name != "logger")
        return f"{head} {rest}".rstrip()


class Lines(logging.Handler):
    """Writes lines in a thread of its own, because a pipe whose reader sleeps must not hold up the loop."""

    def __init__(self, output: FileIO) -> None:
        super().__init__()
        self.dropped = 0
        self._output = output
        self._waiting: Queue[bytes] = Queue(MAX_WAITING_LINES)
        # A daemon: one that hangs does not hold up the end of the process.
        Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Full:
            self.dropped += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything is written, but not for ever."""
        ends = monotonic() + FLUSH_SECONDS
        while self._waiting.unfinished_tasks and monotonic() < ends:
            sleep(0.005)

    def _write(self) -> None:
        while True:
            line = self._waiting.get()
            try:
                while line:
                    line = line[self._output.write(line) :]
            except (OSError, ValueError):
                self.dropped += 1  # there is nobody left to tell
            finally:
                self._waiting.task_done()


def set_up_logging(settings: Log, *, in_thread: bool = True) -> None:
    """Send the log where the configuration says; a process that will fork must not have threads."""
    output = sys.stdout if settings.output == "stdout" else sys.stderr
    # Not through sys.stderr: the lock of its buffer, held by a write that hangs, would crash the end.
    handler = Lines(FileIO(output.fileno(), "w", closefd=False)) if in_thread else StreamHandler(output)
    logging.getLogger().handlers[:] = [handler]
    follow_logging(settings)


def follow_logging(settings: Log) -> None:
    """Take over what a reload may change."""
    root = logging.getLogger()
    for handler in root.handlers:
        handler.setFormatter(JsonLines() if settings.format == "json" else TextLines())
    root.setLevel(settings.level.upper())
    # asyncio reports what it swallowed with the objects involved; at debug level it also logs every select.
    logging.getLogger("asyncio").setLevel(max(root.level, logging.INFO))


class LoopTrouble:
    """The loop's exception handler: what a callback raised is logged, what repeats itself now and then."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self, loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
            # asyncio says so for each connection that it could not accept, and tries again in a second.
            if loop.time() >= self._quiet_until:
                self._quiet_until = loop.time() + QUIET_SECONDS
                log.error("no files left: connections wait or are closed", extra={"reason": str(error)})
            return
        loop.default_exception_handler(context)


def lines_dropped() -> int:
    """Lines that found no room or no output."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, Lines))


def _facts(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, object]:
    facts: dict[str, object] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": _short(record.getMessage()),
        "logger": record.name,
    }
    for name, value in vars(record).items():
        if name not in _STANDARD:
            facts[name] = value if isinstance(value, int | float | bool | type(None)) else _short(str(value))
    if record.exc_info and record.exc_info[2] is not None:  # False, where asyncio has no exception to tell of
        facts["at"] = _places(record.exc_info[2])
        facts["exception"] = record.exc_info[0].__name__ if record.exc_info[0] is not None else None
    return facts


def _places(traceback: TracebackType | None) -> str:
    """Where it happened; not what was said, because an exception's text may hold input."""
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return " > ".join(places)


def _short(text: str) -> str:
    return text if len(text) <= MAX_FACT_CHARS else text[:MAX_FACT_CHARS] + "…"


def _plain(value: object) -> str:
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return f'"{text}"' if " " in text else text
