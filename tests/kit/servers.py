"""Real Redis, PostgreSQL and MariaDB servers on Unix sockets, and HAProxy, for tests that share one."""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

PATIENCE = 30.0
REDIS = shutil.which("redis-server")
POSTGRES = next(
    (found for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
)
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MARIADB = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Server:
    """A process with a folder of its own in /tmp; databases refuse to run as root, so they run as `user`."""

    def __init__(self, user: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llmproxy-", dir="/tmp"))
        self._user = user if user is not None and os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            found = pwd.getpwnam(self._user)
            os.chown(self.folder, found.pw_uid, found.pw_gid)

    def run(self, command: Sequence[str | Path]) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self._as_user())  # type: ignore[call-overload]

    def start(
        self,
        command: Sequence[str | Path],
        is_ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(  # type: ignore[call-overload]
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
            **self._as_user(),
        )
        end = monotonic() + PATIENCE
        while not is_ready():
            assert self._process.poll() is None, f"{command[0]} ended with {self._process.returncode}"
            assert monotonic() < end, f"{command[0]} is not ready"
            sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It keeps its connections and says nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {"cwd": self.folder}
        return {
            "cwd": self.folder,
            "user": self._user,
            "group": grp.getgrgid(pwd.getpwnam(self._user).pw_gid).gr_name,
        }


class RedisServer(Server):
    @property
    def socket(self) -> str:
        return str(self.folder / "redis.sock")

    def begin(self) -> "RedisServer":
        assert REDIS is not None
        options = ("--port", "0", "--unixsocket", self.socket, "--save", "", "--appendonly", "no")
        self.start([REDIS, *options], self._answers)
        return self

    def _answers(self) -> bool:
        from redis import Redis, RedisError

        with suppress(RedisError), Redis(unix_socket_path=self.socket) as client:
            return bool(client.ping())
        return False


class PostgresServer(Server):
    """Trusts whoever reaches its socket; its only database and user are called postgres."""

    def __init__(self) -> None:
        super().__init__(user="postgres")

    def begin(self) -> "PostgresServer":
        assert POSTGRES is not None
        data = self.folder / "data"
        self.run([POSTGRES, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"])
        server = POSTGRES.with_name("postgres")
        quick = ("-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=50")
        command = [server, "-D", data, "-k", self.folder, "-c", "listen_addresses=", *quick]
        self.start(command, lambda: self._is_accepting(POSTGRES.with_name("pg_isready")))
        return self

    def _is_accepting(self, isready: Path) -> bool:
        return subprocess.run([isready, "-q", "-h", self.folder], check=False).returncode == 0


class MariaServer(Server):
    """Lets its own user in without a password; the database is called test."""

    def __init__(self) -> None:
        super().__init__(user="nobody")

    @property
    def socket(self) -> str:
        return str(self.folder / "maria.sock")

    def begin(self) -> "MariaServer":
        assert MARIADB is not None
        data = self.folder / "data"
        self.run(["mkdir", data])
        boot = self.folder / "boot.sql"
        boot.write_text("CREATE DATABASE IF NOT EXISTS test;\n")
        command = [
            MARIADB,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={self.socket}",
            "--skip-networking",
        ]
        self.start([*command, "--skip-grant-tables", f"--init-file={boot}"], Path(self.socket).exists)
        return self


class HaproxyServer(Server):
    """Listens on `port` in front of the addresses that the environment of its configuration names."""

    def begin(self, configuration: Path, port: int, **environ: str) -> "HaproxyServer":
        assert HAPROXY is not None
        command = [HAPROXY, "-db", "-f", configuration]
        self.start(command, lambda: _is_taken(port), {"LISTEN": f"127.0.0.1:{port}", **environ})
        return self


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
