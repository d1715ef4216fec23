"""Batches, outages and answers nobody hears, with a call that does as it is told."""

import asyncio
import logging

import pytest

from proxy.stores import limits_pipe
from proxy.stores.limits_pipe import MAX_BACKLOG, MAX_BATCH, Pipe, StoreDown
from proxy.stores.limits_script import RELEASE, RESERVE, SETTLE

YES = (True, [])


class Call:
    """Answers each batch when it is let go."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None

    async def __call__(self, operations):
        self.batches.append(operations)
        await self.gate.wait()
        if self.error:
            raise self.error
        return [YES for operation in operations if operation[0] == RESERVE]


async def started(call, patience, **options):
    pipe = Pipe(call, timeout=patience, **options)
    await pipe.start()
    call.batches.clear()
    return pipe


@pytest.fixture
async def call():
    return Call()


@pytest.fixture
async def pipe(call):
    pipe = await started(call, 5.0)
    yield pipe
    call.gate.set()
    await pipe.close()


def ask(pipe, number, undone=None):
    undo = [].append if undone is None else lambda answer: undone.append((number, answer))
    return asyncio.create_task(pipe.ask([RESERVE, number], undo))


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the pipe tells nobody what it sends
            await asyncio.sleep(0)


async def test_what_comes_while_a_call_is_under_way_travels_together(pipe, call):
    call.gate.clear()
    first = ask(pipe, 1)
    await until(lambda: call.batches)
    later = [ask(pipe, number) for number in (2, 3)]
    pipe.post([RELEASE, 0])
    await asyncio.sleep(0)
    call.gate.set()

    assert await asyncio.gather(first, *later) == [YES] * 3
    assert call.batches == [[[RESERVE, 1]], [[RELEASE, 0], [RESERVE, 2], [RESERVE, 3]]]


async def test_what_nobody_waits_for_is_taken_along_by_the_next_question(call):
    pipe = await started(call, 5.0, linger=60.0)
    pipe.post([RELEASE, 1])
    pipe.post([SETTLE, 1])

    await ask(pipe, 2)

    assert call.batches == [[[RELEASE, 1], [SETTLE, 1], [RESERVE, 2]]]
    await pipe.close()


async def test_what_nobody_waits_for_goes_by_itself_after_a_moment(pipe, call):
    for number in range(MAX_BATCH + 2):
        pipe.post([RELEASE, number])

    await until(lambda: sum(map(len, call.batches)) == MAX_BATCH + 2)

    assert [len(batch) for batch in call.batches] == [MAX_BATCH, 2]


async def test_a_batch_is_bounded(pipe, call):
    await asyncio.gather(*(ask(pipe, number) for number in range(MAX_BATCH + 10)))

    assert [len(batch) for batch in call.batches] == [MAX_BATCH, 10]


async def test_an_error_is_heard_by_all_who_wait_and_nobody_waits_again(pipe, call, caplog):
    call.gate.clear()
    call.error = OSError("gone")
    undone = []
    sent = ask(pipe, 1, undone)
    await until(lambda: call.batches)
    waiting = ask(pipe, 2, undone)
    await asyncio.sleep(0)
    with caplog.at_level(logging.WARNING, limits_pipe.__name__):
        call.gate.set()
        outcomes = await asyncio.gather(sent, waiting, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [StoreDown, StoreDown]
    assert undone == [(1, None)]  # only what was sent may have happened
    with pytest.raises(StoreDown):
        await pipe.ask([RESERVE, 3], undone.append)
    assert not pipe.is_up
    assert [record.message for record in caplog.records] == ["limit store is down"]


async def test_a_store_that_says_nothing_is_down_after_the_time_out(call):
    pipe = await started(call, 0.01)
    call.gate.clear()

    with pytest.raises(StoreDown):
        await pipe.ask([RESERVE, 1], [].append)

    assert pipe.outages == 1
    await pipe.close()


async def test_after_an_outage_slots_are_given_back_but_nothing_is_charged_twice(pipe, call, caplog):
    call.error = OSError("gone")
    pipe.post([RELEASE, 1])
    pipe.post([SETTLE, 2])
    await until(lambda: not pipe.is_up)
    pipe.post([SETTLE, 3])
    call.batches.clear()
    call.error = None
    caplog.clear()
    with caplog.at_level(logging.WARNING, limits_pipe.__name__):
        await until(lambda: len(call.batches) == 2)

    assert call.batches == [[], [[RELEASE, 1], [SETTLE, 3]]]
    assert (pipe.outages, pipe.lost) == (1, 1)
    assert [record.message for record in caplog.records] == ["limit store is back"]


async def test_what_was_used_in_an_outage_outlives_every_probe_that_fails(pipe, call):
    call.error = OSError("gone")
    pipe.post([RELEASE, 1])
    await until(lambda: not pipe.is_up)
    call.batches.clear()
    pipe.post([SETTLE, 2])
    await until(lambda: len(call.batches) == 2)
    call.error = None

    await until(lambda: [[RELEASE, 1], [SETTLE, 2]] in call.batches)

    assert pipe.lost == 0


async def test_what_waits_for_the_stores_return_is_bounded(pipe, call):
    call.error = OSError("gone")
    pipe.post([SETTLE, "first"])
    await until(lambda: not pipe.is_up)
    for number in range(MAX_BACKLOG + 5):
        pipe.post([RELEASE, number])

    assert pipe.lost == 1 + 5


async def test_an_answer_that_nobody_hears_is_undone(pipe, call):
    call.gate.clear()
    undone = []
    task = ask(pipe, 1, undone)
    await until(lambda: call.batches)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    call.gate.set()
    await until(lambda: undone)

    assert undone == [(1, YES)]


async def test_a_question_whose_asker_left_before_it_was_sent_is_not_asked(pipe, call):
    call.gate.clear()
    undone = []
    first = ask(pipe, 1)
    await until(lambda: call.batches)
    task = ask(pipe, 2, undone)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    call.gate.set()
    await asyncio.gather(first, ask(pipe, 3))

    assert call.batches == [[[RESERVE, 1]], [[RESERVE, 3]]]
    assert undone == []


async def test_starting_finds_out_whether_the_store_is_there(call):
    call.error = OSError("gone")
    pipe = Pipe(call, timeout=5.0)
    await pipe.start()

    assert call.batches == [[]]
    assert not pipe.is_up
    await pipe.close()


async def test_closing_sends_what_is_left(call):
    pipe = await started(call, 5.0)
    for number in range(MAX_BATCH + 1):
        pipe.post([RELEASE, number])

    await pipe.close()

    assert sum(len(batch) for batch in call.batches) == MAX_BATCH + 1


async def test_closing_while_the_store_is_down_does_not_wait_for_it(call):
    pipe = await started(call, 5.0)
    call.error = OSError("gone")
    pipe.post([RELEASE, 1])
    await until(lambda: not pipe.is_up)

    async with asyncio.timeout(1):
        await pipe.close()

    assert len(call.batches) == 1


async def test_closing_in_the_middle_of_a_probe_does_not_wait_for_it(call):
    pipe = await started(call, 60.0)
    call.error = OSError("gone")
    pipe.post([RELEASE, 1])
    await until(lambda: not pipe.is_up)
    call.gate.clear()
    await until(lambda: len(call.batches) == 2)

    async with asyncio.timeout(1):
        await pipe.close()


async def test_nobody_waits_for_a_pipe_that_is_closed(call):
    pipe = await started(call, 5.0)
    await pipe.close()

    with pytest.raises(StoreDown):
        await pipe.ask([RESERVE, 1], [].append)


async def test_closing_twice_or_before_the_start_is_harmless(call):
    pipe = Pipe(call, timeout=5.0)
    await pipe.close()
    await pipe.start()
    await pipe.close()
    await pipe.close()
