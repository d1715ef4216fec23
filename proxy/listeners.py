"""Listening sockets: a host and port, a Unix path, or what systemd hands over.

They are bound before anything else is built: an address that is taken is known
at once, and a connection that comes early waits in the kernel instead of being
refused. Worker processes inherit them.
"""

import errno
import os
import socket
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.config import Config

# Connections the kernel keeps for us while the loop is busy: the largest value Linux takes without a sysctl.
BACKLOG = 4096

# systemd hands over sockets from this descriptor on (sd_listen_fds(3)).
FIRST_INHERITED = 3

# Whoever may reach the folder may connect, as with nginx; the folder's mode is the guard.
UNIX_MODE = 0o666

# A machine without IPv6 (or IPv4) still has the other.
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(slots=True)
class Sockets:
    """What one process accepts from. Empty where an address of its own is not configured."""

    main: list[socket.socket]
    metrics: list[socket.socket] = field(default_factory=list)
    admin: list[socket.socket] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)  # of Unix sockets that we made

    def close(self) -> None:
        for sock in (*self.main, *self.metrics, *self.admin):
            sock.close()

    def remove_paths(self) -> None:
        """Nobody accepts from these any more."""
        for path in self.paths:
            path.unlink(missing_ok=True)


def open_sockets(config: Config) -> Sockets:
    """Bind every address of the configuration; raises OSError naming the one that cannot be had."""
    inherited = inherited_sockets(os.environ)
    sockets = Sockets(
        inherited.pop("", []), metrics=inherited.pop("metrics", []), admin=inherited.pop("admin", [])
    )
    try:
        if not sockets.main:
            sockets.main = bind(config.server.listen, reuse_port=config.server.workers > 1)
            sockets.paths += _paths(sockets.main)
        for section, given in ((config.metrics, sockets.metrics), (config.admin, sockets.admin)):
            if section.enabled and section.listen and not given:
                given += bind(section.listen)
                sockets.paths += _paths(given)
    except BaseException:
        sockets.close()
        sockets.remove_paths()
        raise
    return sockets


def bind(address: str, *, reuse_port: bool = False) -> list[socket.socket]:
    """Listen on host:port, :port (all addresses), [::1]:port or unix:/path."""
    if address.startswith("unix:"):
        return [_bind_unix(address.removeprefix("unix:"))]
    sockets = _bind_all(address)
    if not reuse_port:
        return sockets
    # A port that is shared from the beginning would be shared with whoever has it already.
    names = [(sock.family, sock.getsockname()) for sock in sockets]
    for sock in sockets:
        sock.close()
    return [_bind_tcp(family, name, reuse_port=True) for family, name in names]


def _bind_all(address: str) -> list[socket.socket]:
    host, _, port = address.rpartition(":")
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, name in dict.fromkeys(found):
            # Port 0: what the first address got is what the others should have.
            wanted = (name[0], sockets[0].getsockname()[1] if sockets else name[1], *name[2:])
            try:
                sockets.append(_bind_tcp(family, wanted, reuse_port=False))
            except OSError as error:
                if error.errno not in NO_SUCH_ADDRESS:
                    raise
                missing = error
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets


def sibling(sock: socket.socket) -> socket.socket:
    """Another socket on the same address for another worker, or the same one where it cannot be shared."""
    if not shares_port(sock):
        return sock.dup()
    return join_port(sock.family, sock.getsockname())


def shares_port(sock: socket.socket) -> bool:
    """Whether others on the same port get connections of their own."""
    return sock.family != socket.AF_UNIX and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def join_port(family: int, name: Any) -> socket.socket:
    """One more socket on a shared port."""
    return _bind_tcp(family, name, reuse_port=True)


def url_of(sock: socket.socket, *, tls: bool) -> str:
    """What a client of this host would call it."""
    name = sock.getsockname()
    if isinstance(name, str | bytes):
        return f"unix:{os.fsdecode(name)}"
    host, port = name[0], name[1]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def inherited_sockets(
    environ: MutableMapping[str, str], first: int = FIRST_INHERITED
) -> dict[str, list[socket.socket]]:
    """Sockets from systemd's socket activation, if they are meant for this process.

    Those that the unit calls `metrics` or `admin` (FileDescriptorName=) are for
    those listeners, all others for the main one. Child processes must not see them.
    """
    mine = environ.pop("LISTEN_PID", "") == str(os.getpid())
    count, names = int(environ.pop("LISTEN_FDS", "0") or 0), environ.pop("LISTEN_FDNAMES", "")
    found: dict[str, list[socket.socket]] = {}
    for number, name in zip(range(count if mine else 0), [*names.split(":"), *[""] * count], strict=False):
        sock = socket.socket(fileno=first + number)
        sock.set_inheritable(False)
        sock.setblocking(False)
        found.setdefault(name if name in ("metrics", "admin") else "", []).append(sock)
    return found


def _bind_tcp(family: int, name: tuple[str | int, ...], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # or it would take the IPv4 port too
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(Path(path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        Path(path).chmod(UNIX_MODE)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on unix:{path}: {error.strerror or error}") from error
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket that an ended process left; one that is served, or another file, stays."""
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(f"cannot listen on unix:{path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise OSError(f"cannot listen on unix:{path}: {os.strerror(errno.EADDRINUSE)}")
    path.unlink()


def _paths(sockets: list[socket.socket]) -> list[Path]:
    return [Path(sock.getsockname()) for sock in sockets if sock.family == socket.AF_UNIX]
