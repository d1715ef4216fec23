"""One of several processes that share a port, as it lives and as its parent sees it.

A worker tells its parent what a single process tells systemd, in the same words;
the parent says END, NOW or RELOAD. Signals sent to a worker itself are not what
ends it fast: systemd and terminals send theirs to every process of the service.
"""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from proxy.config import Config
from proxy.listeners import Sockets, join_port, shares_port
from proxy.logs import set_up_logging
from proxy.process import end_of_threads, loop_factory
from proxy.server import Gateway, MakeCrew, Reread

# What either side says is a word or two.
MAX_WORDS_BYTES = 256

END = b"END"  # drain
NOW = b"NOW"  # end without waiting for anybody
RELOAD = b"RELOAD"


@dataclass(slots=True, eq=False)
class Worker:
    """A place among the workers, as the parent keeps it, and the process that holds it now."""

    number: int
    sockets: list[socket.socket]
    pid: int = 0  # 0: nobody holds it
    link: socket.socket | None = None
    is_ready: bool = False
    is_reloading: bool = False
    started_at: float = 0.0
    heard_at: float = 0.0
    deaths: int = 0  # in a row, each soon after the start
    start_at: float | None = None  # when the next one is due
    _left: list[tuple[int, Any]] = field(default_factory=list)

    def say(self, word: bytes) -> None:
        if self.link is not None:
            with suppress(OSError):  # it has just died, or does not listen any more
                self.link.send(word)

    def leave_port(self) -> None:
        """Nobody is here for a while: connections should go to the others."""
        for sock in [sock for sock in self.sockets if shares_port(sock)]:
            self._left.append((sock.family, sock.getsockname()))
            self.sockets.remove(sock)
            sock.close()

    def join_port_again(self) -> None:
        """Undo `leave_port`; raises OSError."""
        while self._left:
            self.sockets.append(join_port(*self._left[-1]))
            self._left.pop()


def work(config: Config, reread: Reread, sockets: Sockets, link: socket.socket, crew: MakeCrew) -> int:
    """Be a worker until the parent ends it, or dies; returns the exit status."""
    set_up_logging(config.log)
    os.environ["WATCHDOG_PID"] = str(os.getpid())  # the parent takes the place of systemd
    with asyncio.Runner(loop_factory=loop_factory(os.environ)) as runner:
        runner.run(_serve(config, reread, sockets, link, crew))
    return end_of_threads()


async def _serve(
    config: Config, reread: Reread, sockets: Sockets, link: socket.socket, crew: MakeCrew
) -> None:
    link.setblocking(False)
    gateway = Gateway(config, reread, partial(_tell, link), crew)
    gateway.loop.add_signal_handler(signal.SIGTERM, gateway.end)
    gateway.loop.add_reader(link, _listen, gateway, link)
    await gateway.run(sockets)


def _tell(link: socket.socket, words: str) -> None:
    with suppress(OSError):  # a parent that does not listen is dead or about to hear enough
        link.send(words.encode())


def _listen(gateway: Gateway, link: socket.socket) -> None:
    try:
        word = link.recv(MAX_WORDS_BYTES)
    except BlockingIOError:
        return
    except ConnectionResetError:  # the parent is gone, and had not read all that we told it
        word = b""
    if word == RELOAD:
        gateway.reload_soon()
    elif word == NOW:
        gateway.end_at_once()
    else:  # END, or nothing: the parent is gone
        gateway.end()
        if not word:
            gateway.loop.remove_reader(link)
