"""Changes to keys, one JSON line each, in a file that is only ever appended to."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from proxy.stores.times import rfc3339

log = logging.getLogger(__name__)


class AuditLog:
    """Writes to its file, opened anew for each line so that it may be moved away; without one, to the log."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Called in the thread that made the change; the database holds the entry already."""
        line = {**entry, "at": rfc3339(entry["at"])}
        if self._path is None:
            log.info("key changed", extra={key: line[key] for key in ("who", "action", "key_id", "changes")})
            return
        try:
            self._append(self._path, orjson.dumps(line) + b"\n")
        except OSError as error:
            log.error(
                "audit file cannot be written", extra={"path": str(self._path), "reason": error.strerror}
            )

    def _append(self, path: Path, line: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
