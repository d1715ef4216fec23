"""The measurements in bench/ start, so that half an hour of them does not end at the last one."""

import subprocess
import sys

import pytest
from kit.gateway import ROOT

SCRIPTS = sorted((ROOT / "bench").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_measurement_says_what_can_be_chosen(script):
    command = [sys.executable, str(script), "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert f"usage: {script.name}" in shown.stdout


def test_make_bench_runs_all_of_them():
    dry = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert SCRIPTS
    assert [script.name for script in SCRIPTS if f"bench/{script.name}" not in dry.stdout] == []
