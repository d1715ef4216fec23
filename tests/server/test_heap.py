"""Freed memory stays with the process, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

FREE_MUCH = """
from pathlib import Path
from proxy.heap import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

keep_freed_memory()
pieces = [b"x" * (200_000 + number) for number in range(150)]
full = resident()
del pieces
print(full - resident())
"""

GIVE_BACK = """
from proxy.heap import give_back

give_back()
print(full - resident())
"""


@pytest.mark.parametrize(("setting", "keeps"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "65536"}, False)])
def test_freed_pieces_stay(setting, keeps):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | setting

    done = subprocess.run([sys.executable, "-c", FREE_MUCH], env=environ, capture_output=True, check=True)

    assert (int(done.stdout) < 10_000_000) is keeps


def test_what_is_free_is_given_back_when_asked():
    done = subprocess.run([sys.executable, "-c", FREE_MUCH + GIVE_BACK], capture_output=True, check=True)

    kept, given = done.stdout.split()
    assert int(kept) < 10_000_000
    assert int(given) > 20_000_000
