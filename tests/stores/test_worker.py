"""Calls in threads."""

import asyncio
import threading

import pytest

from proxy.stores import worker
from proxy.stores.worker import Worker, WorkerBusy


@pytest.fixture
async def one():
    one = Worker("test")
    yield one
    await one.close()


async def test_a_call_runs_elsewhere_and_its_result_comes_back(one):
    assert await one.run(lambda: threading.current_thread().name) == "test"


async def test_what_a_call_raises_comes_back_too(one):
    with pytest.raises(ZeroDivisionError):
        await one.run(lambda: 1 / 0)
    with pytest.raises(SystemExit):
        await one.run(lambda: (_ for _ in ()).throw(SystemExit(3)))

    assert await one.run(lambda: 5) == 5


async def test_calls_run_in_the_order_they_came(one):
    seen = []

    await asyncio.gather(*(one.run(lambda number=number: seen.append(number)) for number in range(50)))

    assert seen == list(range(50))


async def test_the_loop_goes_on_meanwhile(one):
    gate = threading.Event()
    waiting = asyncio.create_task(one.run(gate.wait))
    await asyncio.sleep(0)

    gate.set()  # the loop could not come here if the call held it

    assert await waiting


async def test_a_call_whose_caller_has_left_is_not_begun(one):
    gate, seen = threading.Event(), []
    first = asyncio.create_task(one.run(gate.wait))
    second = asyncio.create_task(one.run(lambda: seen.append(1)))
    await asyncio.sleep(0)

    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    gate.set()
    await first
    await one.run(lambda: None)

    assert seen == []


async def test_what_waits_is_bounded(one):
    gate = threading.Event()
    waiting = [asyncio.create_task(one.run(gate.wait)) for _ in range(worker.MAX_WAITING)]
    await asyncio.sleep(0)

    with pytest.raises(WorkerBusy):
        await one.run(lambda: None)

    gate.set()
    await asyncio.gather(*waiting)
    assert await one.run(lambda: 5) == 5


async def test_several_threads_run_several_calls():
    several = Worker("several", threads=3)
    barrier = threading.Barrier(3)

    await asyncio.gather(*(several.run(lambda: barrier.wait(10)) for _ in range(3)))
    await several.close()


async def test_closing_waits_for_what_was_begun():
    one, seen = Worker("test"), []
    calls = [asyncio.create_task(one.run(lambda number=number: seen.append(number))) for number in range(5)]
    await asyncio.sleep(0)

    await one.close()
    await asyncio.gather(*calls)

    assert seen == list(range(5))
    assert not any(thread.name == "test" for thread in threading.enumerate())


async def test_closing_does_not_wait_for_ever_for_a_call_that_never_returns():
    one, gate = Worker("stuck"), threading.Event()
    waiting = asyncio.create_task(one.run(gate.wait))
    await asyncio.sleep(0)

    await one.close(within=0.01)

    gate.set()
    await waiting
