"""The real gateway as a subprocess, with the configuration a test gives it."""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_PATIENCE = 90.0  # on a machine that is busy with much else

# Lines of the gateway's own output that no test may cause: a crash, or something forgotten.
ALARMS = (
    "Traceback (most recent call last)",
    "never retrieved",
    "was never awaited",
    "Unclosed ",
    "Task was destroyed",
    "Fatal error",
    "Unhandled exception",
)

Settings = dict[str, Any]

_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> None:
    """A test run that is killed leaves no gateway behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port nobody listens on, below the range from which outgoing connections take theirs."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def merged(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with `changes` laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def settings(*backend_ports: int, **changes: Any) -> Settings:
    """A configuration for probes: nothing but the byte path, and patience for a loaded machine."""
    base: Settings = {
        "server": {"max_body_size": "32MiB", "read_timeout": "20s", "shutdown_timeout": "3s"},
        "log": {"level": "info", "format": "json"},
        "auth": {"enabled": False},
        "backends": [
            {"name": f"backend-{number}", "url": f"http://127.0.0.1:{port}"}
            for number, port in enumerate(backend_ports)
        ],
        "routing": {
            "retry": {"enabled": False},
            "timeouts": {"connect": "5s", "first_byte": "20s", "idle": "20s"},
        },
        "health_check": {"enabled": False},
        "usage": {"enabled": False},
        "metrics": {"enabled": True},
        "rate_limit": {"enabled": False},
    }
    return merged(base, changes)


def _without_uvloop(folder: Path) -> list[str]:
    """With LLMPROXY_PROBE_LOOP=asyncio: a path on which uvloop cannot be imported."""
    if os.environ.get("LLMPROXY_PROBE_LOOP") != "asyncio":
        return []
    hidden = folder / "without-uvloop"
    hidden.mkdir(exist_ok=True)
    (hidden / "uvloop.py").write_text('raise ImportError("hidden by the probes")\n')
    return [str(hidden)]


class Gateway:
    """One running gateway. Synchronous, so that a session's fixture can own it."""

    def __init__(
        self,
        folder: Path,
        configuration: Settings,
        *,
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        wrapper: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.config_file = folder / "llmproxy.json"
        self.write(configuration)
        run = arguments or ("run", "-c", str(self.config_file))
        self.command = [*wrapper, sys.executable, "-m", "proxy", *run]
        path = os.pathsep.join([*_without_uvloop(folder), str(ROOT)])
        self.environ = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environ or {})}
        self._out = folder / "stdout"
        self._err = folder / "stderr"
        self._judged = 0
        self._started_at = 0
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, configuration: Settings) -> None:
        """Put a configuration in the file; `reload` makes a running gateway read it."""
        whole = merged(configuration, {"server": {"listen": f"127.0.0.1:{self.port}"}})
        self.config_file.write_text(json.dumps(whole, indent=1))

    def start(self, *, wait: bool = True) -> "Gateway":
        self._started_at = len(self._read(self._out))
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=_die_with_parent,
            )
        if wait:
            self._wait_ready()
        return self

    def check(self) -> subprocess.CompletedProcess[str]:
        """What `llmproxy check` says of its configuration."""
        command = [sys.executable, "-m", "proxy", "check", str(self.config_file)]
        return subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True)

    def died_early(self) -> bool:
        """Wait until it either serves or has ended; whether it ended."""
        try:
            self._wait_ready()
        except AssertionError:
            return True
        return False

    def _wait_ready(self) -> None:
        deadline = monotonic() + START_PATIENCE
        while not (self.accepts() and self._has_said_ready()):
            assert self.process is not None
            if self.process.poll() is not None or monotonic() > deadline:
                raise AssertionError(f"the gateway did not start: {self.output[-4000:]}")
            sleep(0.02)

    def _has_said_ready(self) -> bool:
        return f":{self.port}" in self._read(self._out)[self._started_at :]

    def accepts(self) -> bool:
        """Whether a connection to the gateway is taken."""
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    # -- life

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stand_still(self) -> None:
        """Stop it until it is sent SIGCONT: what comes meanwhile, its loop finds in one turn."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def wait(self, patience: float = 20.0) -> int:
        """The exit status, once it is there."""
        assert self.process is not None
        return self.process.wait(patience)

    def stop(self) -> int:
        """End it in the orderly way; the exit status."""
        if not self.is_running:
            assert self.process is not None
            return self.process.returncode
        self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not end: {self.output[-4000:]}") from None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    # -- what it says and holds

    @property
    def output(self) -> str:
        return self._read(self._out) + self._read(self._err)

    @property
    def log(self) -> str:
        """Its log alone, which is on stderr."""
        return self._read(self._err)

    def _read(self, path: Path) -> str:
        return path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else ""

    def log_lines(self) -> list[str]:
        """Its log and access log, without the ready line that is for people."""
        return [line for line in self._read(self._err).splitlines() if line] + [
            line for line in self._read(self._out).splitlines() if line.startswith("{")
        ]

    def new_alarms(self) -> list[str]:
        """Crashes and forgotten things in the output since the last call, with what follows them."""
        lines = self.output.splitlines()
        fresh, self._judged = lines[self._judged :], len(lines)
        return [
            "\n".join(fresh[at : at + 30]) for at, line in enumerate(fresh) if any(a in line for a in ALARMS)
        ]

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def own_bytes(self) -> int:
        """Memory that is this process's alone, in RAM or swapped out; libraries' pages come and go."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
        )
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap")) * 1024

    @property
    def resident_bytes(self) -> int:
        return self._status("VmRSS")

    @property
    def peak_bytes(self) -> int:
        """The most that was resident since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5)

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field}")
