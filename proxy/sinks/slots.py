"""Which spool file is whose, where several processes share a directory.

Every process claims a slot, `usage-0.db`, `usage-1.db` and so on, by a lock that the
kernel releases when the process ends, however it ends. What an ended process left in
its slot is taken over by any other.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# One slot for each worker and for those of an old generation: a host with more than 256
# worker processes does not exist, one in a restart loop that leaks locks might.
MAX_SLOTS = 256


class Slot:
    """A claimed spool file; the claim ends with `release` or with the process."""

    def __init__(self, directory: Path, number: int, lock: int) -> None:
        self.path = directory / f"usage-{number}.db"
        self._lock = lock

    def release(self) -> None:
        os.close(self._lock)


def claim(directory: Path) -> Slot:
    """The first free slot; raises OSError where none can be had."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(MAX_SLOTS):
        if (slot := _try_claim(directory, number)) is not None:
            return slot
    raise OSError(f"all {MAX_SLOTS} spool files in {directory} are in use")


def abandoned(directory: Path) -> Iterator[Path]:
    """Spool files that no living process claims; each is ours until the next one is asked for."""
    for number in range(MAX_SLOTS):
        if not (directory / f"usage-{number}.db").exists():
            continue
        if (slot := _try_claim(directory, number)) is not None:
            try:
                yield slot.path
            finally:
                slot.release()


def _try_claim(directory: Path, number: int) -> Slot | None:
    lock = os.open(directory / f"usage-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return Slot(directory, number, lock)
