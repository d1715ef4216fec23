"""What is written in one turn goes out together, once, in order."""

import asyncio

from proxy.upstream.outflow import Outflow


class Page:
    """Notes when it is flushed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self._name, self._notes = name, notes

    def flush(self) -> None:
        self._notes.append(self._name)


async def test_all_of_one_turn_is_flushed_in_the_next_in_order():
    notes: list[str] = []
    outflow = Outflow(asyncio.get_running_loop())

    outflow.add(Page("one", notes))
    outflow.add(Page("two", notes))
    assert notes == []
    await asyncio.sleep(0)

    assert notes == ["one", "two"]
    await asyncio.sleep(0)
    assert notes == ["one", "two"]


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
