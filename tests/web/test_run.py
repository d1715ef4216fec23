"""Handlers run without a task while they only wait for their answer, and end when they are cancelled."""

import asyncio
import contextlib

import pytest
from kit.eventually import eventually

from proxy.web.run import Pause, Run, in_task

Notes = list[object]


@pytest.fixture
async def run() -> Run:
    return Run(asyncio.get_running_loop())


async def begin(run: Run, coroutine) -> None:
    """Start it where no task is: in the loop itself."""
    await outside(run.begin, coroutine)


async def outside(function, *args) -> None:
    """Call it where no task is."""
    asyncio.get_running_loop().call_soon(function, *args)
    await asyncio.sleep(0)


async def test_what_waits_for_a_pause_goes_on_before_its_end_returns(run):
    notes: Notes = []
    pause = Pause(run)

    async def handler():
        notes.append(asyncio.current_task())
        await pause
        notes.append("on")

    def end():
        pause.end()
        notes.append("ended")

    await begin(run, handler())
    await outside(end)

    assert notes == [None, "on", "ended"]


async def test_a_pause_that_has_ended_is_not_waited_for(run):
    notes: Notes = []
    pause = Pause(run)
    pause.end()

    async def handler():
        await pause
        notes.append("on")

    await begin(run, handler())

    assert notes == ["on"]


@pytest.mark.parametrize("moves", [False, True])
async def test_a_cancelled_run_hears_of_it_where_it_waits(run, moves):
    notes: Notes = []
    pause = Pause(run)

    async def handler():
        if moves:
            await in_task()
        try:
            await pause
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise

    async def outermost():
        try:
            await handler()
        except asyncio.CancelledError:
            notes.append("unwound")

    await begin(run, outermost())
    await asyncio.sleep(0.01)
    await outside(run.cancel)
    await asyncio.sleep(0.01)
    await outside(pause.end)
    await outside(run.cancel)

    assert notes == ["cancelled", "unwound"]


@pytest.mark.parametrize("waits_for", [in_task, lambda: asyncio.sleep(60)])
async def test_a_run_hears_of_it_when_it_is_cancelled_at_once(run, waits_for):
    """Its task has not run yet, and a task that is cancelled before its first step never does."""
    notes: Notes = []

    async def handler():
        try:
            await waits_for()
            await Pause(run)
        except BaseException as error:
            notes.append(type(error))
            raise

    async def outermost():
        with contextlib.suppress(asyncio.CancelledError):
            await handler()
        notes.append("unwound")

    def both():
        run.begin(outermost())
        run.cancel()

    await outside(both)
    await eventually(lambda: len(notes) == 2, "the end")

    assert notes == [asyncio.CancelledError, "unwound"]


async def test_a_run_that_cancels_itself_hears_of_it_at_its_next_wait(run):
    notes: Notes = []

    async def handler():
        run.cancel()
        notes.append("still here")
        try:
            await Pause(run)
        except asyncio.CancelledError:
            notes.append("cancelled")

    await begin(run, handler())
    await asyncio.sleep(0)

    assert notes == ["still here", "cancelled"]


async def test_whatever_else_is_waited_for_makes_a_task_which_keeps_what_was_begun(run):
    notes: Notes = []
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    pause = Pause(run)

    async def handler():
        notes.append(asyncio.current_task() is None)
        notes.append(await future)
        notes.append(asyncio.current_task() is None)
        await pause
        notes.append("ended")

    await begin(run, handler())
    future.set_result("answer")
    await eventually(lambda: len(notes) == 3, "going on in a task")
    pause.end()
    await eventually(lambda: len(notes) == 4, "the end")

    assert notes == [True, "answer", False, "ended"]


async def test_a_failed_future_is_raised_where_it_is_waited_for(run):
    notes: Notes = []
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler():
        try:
            await future
        except OSError as error:
            notes.append(error)

    await begin(run, handler())
    failure = OSError("no such thing")
    future.set_exception(failure)
    await eventually(lambda: bool(notes), "the failure")

    assert notes == [failure]


async def test_time_outs_work_in_a_task(run):
    notes: Notes = []

    async def handler():
        await in_task()
        await in_task()
        try:
            async with asyncio.timeout(0.001):
                await Pause(run)
        except TimeoutError:
            notes.append("time-out")

    await begin(run, handler())
    await eventually(lambda: bool(notes), "the time-out")

    assert notes == ["time-out"]
