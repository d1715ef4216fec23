"""What a serving process needs around its loop: which loop, the first words, the very end."""

import asyncio
import gc
import logging
import os
import resource
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from proxy import __version__
from proxy.config import Config
from proxy.heap import give_back
from proxy.listeners import Sockets, url_of

log = logging.getLogger(__name__)

# What was not written by the end of everything else gets another moment.
THREAD_SECONDS = 2.0


def ready_text(config: Config, sockets: Sockets) -> str:
    """Where it listens, and a command that asks it something when it is pasted into a shell."""
    url = url_of(sockets.main[0], tls=config.server.tls.enabled)
    text = f"LLMProxy {__version__} listens on {url}"
    if url.startswith("unix:"):
        return text
    model = config.models[0].id if config.models else "demo"
    key = ' -H "Authorization: Bearer $LLMPROXY_KEY"' if config.auth.enabled else ""
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}'
    return f"{text}\nTry: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def begin_loading() -> None:
    """What is loaded from here on stays: the collector need not look at it time and again."""
    gc.disable()


def end_loading() -> None:
    """The start is over; of what lives now the collector need not look at anything again."""
    gc.collect()
    give_back()
    gc.freeze()
    # Requests leave no circles behind: at Python's 700 the collector took 1.5 us of each for nothing.
    gc.set_threshold(5_000, 10, 10)
    gc.enable()


def leave_no_core() -> None:
    """A crash writes no core file: keys and prompts would be in it. An operator may raise the limit again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def loop_factory(environ: Mapping[str, str]) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed; LLMPROXY_LOOP=asyncio does without, LLMPROXY_LOOP=uvloop insists."""
    wanted = environ.get("LLMPROXY_LOOP", "")
    if wanted not in ("", "uvloop", "asyncio"):
        raise SystemExit("llmproxy: LLMPROXY_LOOP must be uvloop or asyncio")
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if wanted:
            raise SystemExit("llmproxy: LLMPROXY_LOOP=uvloop, but uvloop is not installed") from None
        return None
    return uvloop.new_event_loop


def end_early(number: int, frame: FrameType | None) -> None:
    """SIGTERM before the loop listens to signals: nothing was begun that would have to end."""
    raise SystemExit(0)


def end_of_threads() -> int:
    """The exit status, once nothing is being written any more; a disk or a pipe that hangs is left behind."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(THREAD_SECONDS)
            if thread.is_alive():
                log.error("ending although something cannot be written", extra={"what": thread.name})
                logging.shutdown()
                os._exit(1)  # the interpreter itself would wait for it
    return 0
