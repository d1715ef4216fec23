"""Several processes that share a port: the parent, which starts them and looks after them.

It binds the sockets, forks, and from then on only waits: for signals, for what its
workers tell, for their ends. It runs no event loop and no thread, so that it can
fork again at any time. Each worker is a whole gateway with a socket of its own on
the port, among which the kernel spreads connections; the parent keeps all of them
open, so that what waits for a worker that died finds its successor.
"""

import contextlib
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from proxy import server
from proxy.clock import monotonic
from proxy.config import Config, ConfigError
from proxy.heap import keep_freed_memory
from proxy.listeners import Sockets, open_sockets, sibling
from proxy.logs import follow_logging, set_up_logging
from proxy.notify import notify, watchdog_seconds
from proxy.process import end_early, end_loading, leave_no_core, ready_text
from proxy.runtime.crew import Crew
from proxy.server import Beside, Reread
from proxy.worker import END, MAX_WORDS_BYTES, NOW, RELOAD, Worker, work

log = logging.getLogger(__name__)

# A worker that lived so long did not die of what it is: its successor is started at once.
STABLE_SECONDS = 10.0

# Else the pauses double from the first to the longest: a worker that cannot live must not take the
# whole machine to show it.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def serve(config: Config, reread: Reread, beside: Beside = contextlib.nullcontext) -> int:
    """Run a gateway of as many processes as it wants until a signal ends it; returns the exit status."""
    leave_no_core()
    keep_freed_memory()
    if config.server.workers == 1:
        return server.serve(config, reread, beside)
    set_up_logging(config.log, in_thread=False)
    signal.signal(signal.SIGTERM, end_early)
    sockets = open_sockets(config)
    folder = Path(tempfile.mkdtemp(prefix="llmproxy-", dir=os.environ.get("RUNTIME_DIRECTORY")))
    try:
        return Parent(config, reread, sockets, folder).run()
    finally:
        sockets.remove_paths()
        shutil.rmtree(folder, ignore_errors=True)


class Parent:
    """Looks after the workers; in `folder` they find each other."""

    def __init__(self, config: Config, reread: Reread, sockets: Sockets, folder: Path) -> None:
        self._config = config
        self._reread = reread
        self._sockets = sockets
        self._folder = folder
        places = [sockets.main]
        places += [[sibling(sock) for sock in sockets.main] for _ in range(config.server.workers - 1)]
        self._workers = [Worker(number, place) for number, place in enumerate(places)]
        self._ready_text = ready_text(config, sockets)
        self._selector = selectors.DefaultSelector()
        self._watchdog = watchdog_seconds()
        self._fed_at = 0.0
        self._has_started = self._is_stopping = self._is_reloading = False
        self._status = 0

    # -- life --------------------------------------------------------------

    def run(self) -> int:
        """Returns the exit status, once a signal has ended everything."""
        end_loading()  # pages that no collection writes to stay shared
        with _signals_as_bytes() as signals:
            self._selector.register(signals, selectors.EVENT_READ)
            try:
                # The first one alone: what keeps it from starting is said once.
                self._fork(self._workers[0])
                while not self._is_stopping or any(worker.pid for worker in self._workers):
                    self._wait(signals)
                    self._bury()
                    self._look_around()
            finally:
                for worker in self._workers:
                    if worker.pid:
                        os.kill(worker.pid, signal.SIGKILL)
        return self._status

    def _wait(self, signals: socket.socket) -> None:
        for key, _ in self._selector.select(self._patience()):
            if isinstance(key.data, Worker):
                self._listen(key.data)
            else:
                for number in signals.recv(4096):
                    self._obey(number)

    def _patience(self) -> float | None:
        """Seconds until something is due that nobody will say."""
        due = [worker.start_at for worker in self._workers if worker.start_at is not None]
        if self._watchdog is not None:
            due.append(self._fed_at + self._watchdog / 3)
        return max(min(due) - monotonic(), 0.0) if due else None

    def _look_around(self) -> None:
        now = monotonic()
        for worker in self._workers:
            if worker.start_at is not None and now >= worker.start_at:
                self._start_again(worker)
        if self._watchdog is not None and now >= self._fed_at + self._watchdog / 3:
            self._fed_at = now
            self._end_the_hung(now, self._watchdog)
            notify("WATCHDOG=1")

    def _end_the_hung(self, now: float, period: float) -> None:
        """A worker whose loop hangs is replaced; the others go on."""
        for worker in self._workers:
            if worker.is_ready and now - worker.heard_at > period:
                log.error("a worker hangs and is killed", extra={"worker": worker.number, "pid": worker.pid})
                os.kill(worker.pid, signal.SIGKILL)

    # -- signals -----------------------------------------------------------

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP and not self._is_stopping:
            self._reload()

    def _stop(self) -> None:
        """Let the workers drain; the second time, let them end at once."""
        word = NOW if self._is_stopping else END
        if not self._is_stopping:
            self._is_stopping = True
            notify("STOPPING=1")
            # Ours too must be closed, or the kernel would go on taking connections.
            self._sockets.close()
            for worker in self._workers:
                worker.start_at = None
                for sock in worker.sockets:
                    sock.close()
        for worker in self._workers:
            worker.say(word)

    def _reload(self) -> None:
        """Read the configuration first: what is wrong with it is said once, and changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1_000_000)}")
        try:
            self._config = self._reread()
        except (ConfigError, OSError, ValueError) as error:
            log.error("the new configuration was refused, the old one stays", extra={"reason": str(error)})
            notify("READY=1")
            return
        follow_logging(self._config.log)
        self._is_reloading = True
        for worker in self._workers:
            worker.is_reloading = worker.is_ready
            worker.say(RELOAD)
        self._settle()

    # -- what workers say --------------------------------------------------

    def _listen(self, worker: Worker) -> None:
        assert worker.link is not None
        with suppress(OSError):
            while words := worker.link.recv(MAX_WORDS_BYTES):
                worker.heard_at = monotonic()
                if words == b"READY=1":
                    worker.is_ready, worker.is_reloading = True, False
                    self._settle()

    def _settle(self) -> None:
        """See whether all are ready by now, and tell whoever waits for that."""
        if not self._has_started:
            self._settle_start()
        elif self._is_reloading and not any(worker.is_reloading for worker in self._workers):
            self._is_reloading = False
            notify("READY=1")

    def _settle_start(self) -> None:
        if self._workers[0].is_ready:
            for worker in self._workers[1:]:
                if not worker.pid and not self._is_stopping:
                    self._fork(worker)
        if all(worker.is_ready for worker in self._workers):
            self._has_started = True
            print(self._ready_text, flush=True)
            notify("READY=1")

    # -- births and deaths -------------------------------------------------

    def _fork(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            ours.close()
            self._become(worker, theirs)
        theirs.close()
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        worker.pid, worker.link, worker.start_at = pid, ours, None
        worker.started_at = worker.heard_at = monotonic()

    def _become(self, worker: Worker, link: socket.socket) -> None:
        """In the new process: be a worker, and never return."""
        status = 1
        try:
            self._let_go(worker)
            sockets = Sockets(worker.sockets, self._sockets.metrics, self._sockets.admin)
            crew = partial(Crew, self._folder, worker.number, len(self._workers))
            status = work(self._config, self._reread, sockets, link, crew)
        except ConfigError as error:
            print(error, file=sys.stderr)
            status = 2
        except OSError as error:
            print(f"llmproxy: {error}", file=sys.stderr)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            logging.shutdown()
            os._exit(status)

    def _let_go(self, worker: Worker) -> None:
        """Of everything that is the parent's or another worker's."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.close()
        for other in self._workers:
            if other.link is not None:
                other.link.close()
            if other is not worker:
                for sock in other.sockets:
                    sock.close()

    def _bury(self) -> None:
        """Take note of every worker that ended."""
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._died(worker, os.waitstatus_to_exitcode(status))

    def _died(self, worker: Worker, status: int) -> None:
        assert worker.link is not None
        self._selector.unregister(worker.link)
        worker.link.close()
        worker.pid, worker.link, worker.is_ready, worker.is_reloading = 0, None, False, False
        if self._is_stopping:
            self._status = self._status or (status if status >= 0 else 1)
        elif not self._has_started:  # what one cannot do the others cannot
            self._status = status if status > 0 else 1
            self._stop()
        else:
            self._replace(worker, status)
            self._settle()

    def _replace(self, worker: Worker, status: int) -> None:
        lived = monotonic() - worker.started_at
        worker.deaths = worker.deaths + 1 if lived < STABLE_SECONDS else 0
        pause = 0.0
        if worker.deaths:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(worker.deaths - 1, 16), LONGEST_PAUSE_SECONDS)
            worker.leave_port()
        worker.start_at = monotonic() + pause
        facts = {"worker": worker.number, "status": status, "lived": round(lived, 1), "pause": pause}
        log.error("a worker died and is replaced", extra=facts)

    def _start_again(self, worker: Worker) -> None:
        try:
            worker.join_port_again()
            self._fork(worker)
        except OSError as error:  # no memory, no process, or the port taken meanwhile
            worker.start_at = monotonic() + LONGEST_PAUSE_SECONDS
            log.error("a worker cannot be started", extra={"worker": worker.number, "reason": str(error)})


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[socket.socket]:
    """A socket from which the numbers of the signals that came can be read."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    signal.set_wakeup_fd(theirs.fileno())
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        ours.close()
        theirs.close()
