"""sd_notify(3): one datagram to the service manager, if there is one."""

import os
import socket


def notify(state: str) -> None:
    """Tell systemd, e.g. `READY=1`; outside of systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket's name begins with a zero byte
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError:
            return  # the manager is gone; serving matters more


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear that we are alive; None if it does not."""
    usec = os.environ.get("WATCHDOG_USEC")
    pid = os.environ.get("WATCHDOG_PID")
    if not usec or (pid and int(pid) != os.getpid()):
        return None
    return int(usec) / 1_000_000
