"""What is written in one turn goes out together, once, in order."""

import asyncio

from proxy.upstream.outflow import Outflow


class Page:
    """Notes when it is flushed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name, self._notes = name, notes

    def flush(self) -> None:
        self._notes.append(self._name)


async def test_one_alone_is_flushed_in_the_next_turn():
    notes: list[str] = []
    outflow = Outflow(asyncio.get_running_loop())

    outflow.add(Page("one", notes))
    assert notes == []
    await asyncio.sleep(0)

    assert notes == ["one"]


async def test_several_wait_one_turn_more_and_are_flushed_in_order_with_what_that_turn_brings():
    notes: list[str] = []
    outflow = Outflow(asyncio.get_running_loop())

    outflow.add(Page("one", notes))
    outflow.add(Page("two", notes))
    await asyncio.sleep(0)
    assert notes == []
    outflow.add(Page("three", notes))
    await asyncio.sleep(0)

    assert notes == ["one", "two", "three"]
    await asyncio.sleep(0)
    assert notes == ["one", "two", "three"]


async def test_what_a_flush_brings_waits_for_the_turn_after():
    notes: list[str] = []
    outflow = Outflow(asyncio.get_running_loop())

    class Again(Page):
        def flush(self) -> None:
            super().flush()
            outflow.add(Page("later", notes))

    outflow.add(Again("first", notes))
    await asyncio.sleep(0)
    assert notes == ["first"]
    await asyncio.sleep(0)

    assert notes == ["first", "later"]
