"""A fixed share of a core for each of some processes, kept by the kernel's CPU controller.

Where load, engine and gateway share two cores, this leaves the gateway the same
and the others enough. It needs root and cgroups of either version.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")

# How often a share begins anew, in µs: short beside the seconds that are measured.
PERIOD = 10_000


def can_share() -> bool:
    """Whether this process may make groups with a share of their own; a real-time one cannot be confined."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    try:
        with _group("llmproxy-bench", 0.5):
            return True
    except OSError:
        return False


@contextmanager
def shared(pids: Iterable[int], share: float) -> Iterator[None]:
    """Each of these processes gets `share` of a core and no more, until the end."""
    with ExitStack() as stack:
        for pid in pids:
            group = stack.enter_context(_group(f"llmproxy-bench-{pid}", share))
            (group / "cgroup.procs").write_text(str(pid))
        yield


@contextmanager
def _group(name: str, share: float) -> Iterator[Path]:
    home = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS
    group = home / name
    group.mkdir()
    try:
        quota = int(PERIOD * share)
        if home == GROUPS:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (home / "cgroup.procs").write_text(pid)
        group.rmdir()
