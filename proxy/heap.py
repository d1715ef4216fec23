"""glibc's heap, told to keep what is freed.

By default it gives a freed request body back to the kernel and takes it again,
page by page, for the next one, and a thread's heap grows by one system call a
page: the writer of usage records made 35 of them a request. A service manager
sets the same by environment variables, and those count.
"""

import os
from collections.abc import Callable

# mallopt(3)'s numbers, what each is called in the environment, and the value. 64 MiB are a few
# hundred of an agent's prompts; pieces from 4 MiB on come and go by themselves, each in full.
_SETTINGS = (
    (-1, "MALLOC_TRIM_THRESHOLD_", 64 * 1024 * 1024),
    (-2, "MALLOC_TOP_PAD_", 1024 * 1024),
    (-3, "MALLOC_MMAP_THRESHOLD_", 4 * 1024 * 1024),
    (-8, "MALLOC_ARENA_MAX", 1),
)


def keep_freed_memory() -> None:
    """To be called before there are threads; does nothing where the C library is another."""
    mallopt = _c_function("mallopt")
    for number, name, value in _SETTINGS:
        if name not in os.environ and mallopt is not None:
            mallopt(number, value)


def give_back() -> None:
    """What is free at this moment goes back to the kernel: after the start, a MiB."""
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


def _c_function(name: str) -> Callable[..., object] | None:
    try:
        from ctypes import CDLL

        found: Callable[..., object] = getattr(CDLL(None), name)
    except (ImportError, MemoryError, OSError, AttributeError):  # MemoryError: nothing may be executable
        return None
    return found
