"""The courier against sinks that fail in every way."""

import asyncio
from collections.abc import Sequence

import pytest

from proxy.sinks.batch import Batch
from proxy.sinks.courier import MAX_REFUSALS, MAX_RETRY_AFTER, Courier, Pauses
from proxy.sinks.sink import Delivery

FAST = Pauses(first=0.001, longest=0.002, gather=0.001)


class MemoryShelf:
    """A shelf over a list of batches."""

    def __init__(self, *batches: Sequence[bytes]) -> None:
        self.batches = [Batch(lines, 0.0) for lines in batches]
        self.aside: list[tuple[str, list[bytes], str]] = []
        self.emptied = asyncio.Event()

    async def next(self, sink: str) -> Batch | None:
        return self.batches[0] if self.batches else None

    async def acknowledge(self, sink: str, batch: Batch) -> None:
        self.batches.remove(batch)
        if not self.batches:
            self.emptied.set()

    async def set_aside(self, sink: str, lines: Sequence[bytes], reason: str) -> None:
        self.aside.append((sink, list(lines), reason))


class ScriptedSink:
    """Fails as `script` says, one entry a try, then takes everything; never takes `poison`."""

    name = "billing"

    def __init__(self, *script: Delivery | Exception, poison: bytes = b"") -> None:
        self.script = list(script)
        self.poison = poison
        self.tries: list[tuple[list[bytes], bool]] = []
        self.got: list[bytes] = []
        self.tried = asyncio.Event()

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        self.tries.append((list(lines), singly))
        self.tried.set()
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            self.got += [line for line in lines if line not in step.left]
            return step
        if self.poison not in lines:
            self.got += lines
            return Delivery()
        refused = [self.poison] if singly else list(lines)
        self.got += [line for line in lines if line not in refused]
        return Delivery(left=refused, refused=refused, reason="status 400")

    async def close(self) -> None:
        pass


async def carried(sink: ScriptedSink, shelf: MemoryShelf, pauses: Pauses = FAST) -> Courier:
    """Run a courier until nothing is left."""
    courier = Courier(sink, shelf, lambda: 1.0, pauses)
    task = asyncio.create_task(courier.run())
    async with asyncio.timeout(5):
        await shelf.emptied.wait()
    courier.hurry()
    await task
    return courier


async def test_batches_are_carried_in_order():
    sink = ScriptedSink()
    courier = await carried(sink, MemoryShelf([b"1", b"2"], [b"3"]))

    assert sink.got == [b"1", b"2", b"3"]
    assert courier.stats.delivered == 3


@pytest.mark.parametrize("failure", [Delivery(left=[b"1", b"2"], reason="status 500"), RuntimeError("a bug")])
async def test_a_failing_sink_is_tried_until_it_works(failure):
    sink = ScriptedSink(*[failure] * 20)
    courier = await carried(sink, MemoryShelf([b"1", b"2"]))

    assert sink.got == [b"1", b"2"]
    assert (courier.stats.failures, courier.stats.delivered) == (20, 2)


async def test_only_what_is_left_is_tried_again():
    sink = ScriptedSink(Delivery(left=[b"2"], reason="status 503"))
    await carried(sink, MemoryShelf([b"1", b"2", b"3"]))

    assert [lines for lines, _ in sink.tries] == [[b"1", b"2", b"3"], [b"2"]]


async def test_one_poisoned_record_does_not_stop_the_others():
    sink, shelf = ScriptedSink(poison=b"2"), MemoryShelf([b"1", b"2", b"3"], [b"4"])
    courier = await carried(sink, shelf)

    assert sink.got == [b"1", b"3", b"4"]
    assert shelf.aside == [("billing", [b"2"], "status 400")]
    assert courier.stats.refused == 1
    assert [singly for _, singly in sink.tries] == [False] * MAX_REFUSALS + [True] * MAX_REFUSALS + [False]


async def test_a_refusal_is_not_believed_while_the_receiver_is_in_trouble():
    refusal = Delivery(left=[b"1"], refused=[b"1"], reason="status 400")
    trouble = Delivery(left=[b"1"], reason="status 502")
    sink, shelf = ScriptedSink(*[refusal, refusal, trouble] * 10), MemoryShelf([b"1"])
    await carried(sink, shelf)

    assert (sink.got, shelf.aside) == ([b"1"], [])


async def test_told_to_hurry_it_tries_once_more_and_ends():
    sink = ScriptedSink(*[Delivery(left=[b"1"], reason="ClientConnectorError")] * 3)
    shelf = MemoryShelf([b"1"])
    courier = Courier(sink, shelf, lambda: 1.0, Pauses(first=100.0, longest=100.0))
    task = asyncio.create_task(courier.run())
    async with asyncio.timeout(5):
        await sink.tried.wait()
        courier.hurry()
        await task

    assert len(sink.tries) == 2
    assert len(shelf.batches) == 1


async def test_news_wakes_it():
    sink, shelf = ScriptedSink(), MemoryShelf()
    courier = Courier(sink, shelf, lambda: 1.0, FAST)
    task = asyncio.create_task(courier.run())
    await asyncio.sleep(0)
    shelf.batches.append(Batch([b"1"], 0.0))
    courier.notify()
    async with asyncio.timeout(5):
        await shelf.emptied.wait()
    courier.hurry()
    await task


@pytest.mark.parametrize(
    ("tries", "chance", "retry_after", "expected"),
    [
        (1, 1.0, None, 0.5),
        (1, 0.0, None, 0.25),
        (4, 1.0, None, 4.0),
        (50, 1.0, None, 60.0),
        (10**6, 0.0, None, 30.0),
        (1, 1.0, 90.0, 90.0),
        (1, 1.0, 1e9, MAX_RETRY_AFTER),
    ],
)
def test_pauses_grow_and_a_receiver_may_name_a_longer_one(tries, chance, retry_after, expected):
    courier = Courier(ScriptedSink(), MemoryShelf(), lambda: chance, Pauses())

    assert courier._pause_after(tries, retry_after) == expected
