"""What the gateway takes before its first request: time to start, memory, disk.

    python bench/footprint.py [--starts 9]

It is installed by pip into a folder of its own, without extras and once more with uvloop, and started
from there; pip compiles what it installs, as any installation does. The time is
from spawning the process to its ready line, the memory what is resident two seconds later.
The table goes to bench/results/footprint.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import clock_gettime, monotonic, sleep

from rig.processes import CPU_CLOCK, status
from rig.report import table, write

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1_000_000

ROWS = (
    ("`llmproxy run --upstream URL`", ("run", "--upstream", "http://127.0.0.1:9")),
    ("`llmproxy run -c conf/llmproxy.yaml`", ("run", "-c", str(ROOT / "conf" / "llmproxy.yaml"))),
)


def install(folder: Path, what: str) -> float:
    """Install into `folder`; returns megabytes."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(folder), what], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE


def start(site: Path, folder: Path, arguments: tuple[str, ...]) -> tuple[float, float, int]:
    """Seconds to the ready line, seconds of CPU until then, and bytes resident later."""
    began = monotonic()
    with subprocess.Popen(
        (sys.executable, "-m", "proxy", *arguments, "--listen", "127.0.0.1:0"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "STATE_DIRECTORY": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        if not any("listens on" in line for line in iter(process.stdout.readline, "")):
            raise SystemExit(f"llmproxy {' '.join(arguments)} did not start")
        seconds = monotonic() - began
        cpu = clock_gettime((~process.pid << 3) | CPU_CLOCK)
        sleep(2)
        resident = status(process.pid, "VmRSS")
        process.terminate()
    return seconds, cpu, resident


def measure(starts: int, folder: Path) -> list[str]:
    core, speed = folder / "core", folder / "speed"
    sizes = install(core, "."), install(speed, ".[speed]")
    rows = [
        ("installed, MB", f"{sizes[0]:.1f}", "60"),
        ("installed with uvloop, MB", f"{sizes[1]:.1f}", "60"),
    ]
    for label, arguments in ROWS:
        start(speed, folder, arguments)  # the disk's share is that of the first start after a boot
        found = [start(speed, folder, arguments) for _ in range(starts)]
        seconds, cpus, resident = zip(*found, strict=True)
        rows += [
            (f"{label}: ready after, s", f"{median(seconds):.2f} (fastest {min(seconds):.2f})", "0.4"),
            (f"{label}: CPU until then, s", f"{median(cpus):.2f} (least {min(cpus):.2f})", ""),
            (f"{label}: idle, MB", f"{median(resident) / MEGABYTE:.1f}", "55"),
        ]
    return table(("", "measured", "bar"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--starts", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmproxy-footprint-") as folder:
        rows = measure(options.starts, Path(folder))
    write("footprint", ["# Footprint", "", "See bench/footprint.py.", "", *rows])


if __name__ == "__main__":
    main()
