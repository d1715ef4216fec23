"""One request's handlers under way, without a task for as long as they only wait for their answer.

A task costs a small request a tenth of its time: it is made, registered, started
in the loop's next turn and woken in another. So the handlers are started at once,
and a `Pause` lets them go on at once. A task is made when they wait for anything
else, and by `in_task` in front of what asks for one: time-outs do.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from typing import Any, cast

_ENDED = object()


class Pause:
    """Lets handlers wait for one event: `await` it, once; `end` it from the event loop.

    `run` is the one that those who wait may be driven by.
    """

    __slots__ = ("_has_ended", "_run", "_wake")

    def __init__(self, run: "Run | None" = None) -> None:
        self._has_ended = False
        self._run = run
        self._wake: Callable[[], object] | None = None

    def end(self) -> None:
        """Whoever waits goes on before this returns, or soon, if it waits in a task."""
        self._has_ended = True
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def __await__(self) -> Generator[Any, None, None]:
        if self._has_ended:
            return
        try:
            if self._run is not None and self._run.is_driving:
                yield self
            else:
                future = asyncio.get_running_loop().create_future()
                self._wake = partial(_wake, future)
                yield from future
        finally:
            self._wake = None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Run:
    """Drives a coroutine, once it is told to `begin`; what that raises is its own affair."""

    __slots__ = ("_coroutine", "_is_waiting", "_loop", "_steps", "_task", "is_driving")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, None, None] | None = None
        self._steps: Iterator[object] = iter(())
        self._task: asyncio.Task[None] | None = None
        self._is_waiting = False
        self.is_driving = False  # the coroutine runs, and runs without a task

    def begin(self, coroutine: Coroutine[Any, None, None]) -> None:
        self._coroutine = coroutine
        self._steps = cast(Iterator[object], coroutine.__await__())
        self.go_on()

    def go_on(self, error: BaseException | None = None) -> None:
        """To the next wait, or to the end; `error` is raised where it waits."""
        coroutine = self._coroutine
        if coroutine is None:
            return
        self._is_waiting, self.is_driving = False, True
        if error is None:
            pause = next(self._steps, _ENDED)  # `send` would make an exception of its end: 1 us
        else:
            pause = _thrown(coroutine, error)
        self.is_driving = False
        if pause is _ENDED:
            self._coroutine = None
            return
        self._is_waiting = True
        if type(pause) is Pause:
            pause._wake = self.go_on
        else:
            self._task = self._loop.create_task(_carried_on(coroutine, pause))

    def cancel(self) -> None:
        """Raise CancelledError where it waits; what runs at the moment hears of it when it waits."""
        if self._task is not None:
            # Behind its first step: what is cancelled in front of that never hears of it.
            self._loop.call_soon(self._task.cancel)
        elif self._is_waiting:
            self.go_on(asyncio.CancelledError())
        elif self._coroutine is not None:
            self._loop.call_soon(self.cancel)


def _thrown(coroutine: Coroutine[Any, None, None], error: BaseException) -> object:
    try:
        return coroutine.throw(error)
    except StopIteration:
        return _ENDED


class _Handover:
    """Waits for nothing, which is enough for a task to be made."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        if asyncio.current_task() is None:
            yield


class _Rest:
    """What is left of a coroutine that has begun and waits for something, as a task wants it."""

    __slots__ = ("_begun", "_waits_for")

    def __init__(self, begun: Coroutine[Any, None, None], waits_for: object) -> None:
        self._begun = begun
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        begun, waits_for = self._begun, self._waits_for
        while True:
            raised: BaseException | None = None
            sent = None
            try:
                sent = yield waits_for
            except BaseException as error:  # above all CancelledError: it belongs where the coroutine waits
                raised = error
            try:
                waits_for = begun.send(sent) if raised is None else begun.throw(raised)
            except StopIteration:
                return


def in_task() -> _Handover:
    """Awaited: from here on the handlers run in a task."""
    return _Handover()


async def _carried_on(begun: Coroutine[Any, None, None], waits_for: object) -> None:
    await _Rest(begun, waits_for)
