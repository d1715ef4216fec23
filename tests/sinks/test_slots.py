"""Spool files of several processes in one directory."""

import subprocess
import sys

import pytest

from proxy.sinks.slots import abandoned, claim

HOLD_A_SLOT = """
import sys, pathlib
from proxy.sinks.slots import claim
slot = claim(pathlib.Path(sys.argv[1]))
slot.path.write_text("mine")
print(slot.path.name, flush=True)
sys.stdin.read()
"""


def test_no_two_claims_get_the_same_file(tmp_path):
    first, second = claim(tmp_path / "new"), claim(tmp_path / "new")

    assert [first.path.name, second.path.name] == ["usage-0.db", "usage-1.db"]

    first.release()
    third = claim(tmp_path / "new")
    assert third.path == first.path
    second.release()
    third.release()


def test_a_file_is_abandoned_when_its_process_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD_A_SLOT, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        held = process.stdout.readline().strip()
        slot = claim(tmp_path)
        while_alive = list(abandoned(tmp_path))
        process.kill()
    slot.path.write_text("ours")

    assert held == "usage-0.db"
    assert while_alive == []
    assert [path.name for path in abandoned(tmp_path)] == ["usage-0.db"]
    slot.release()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError):
        claim(tmp_path / "file" / "below")
