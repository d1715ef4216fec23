"""The watch looks at everybody often enough, and at no more in a tick than it must."""

import asyncio
from collections import Counter

import pytest

from proxy.upstream.watch import LOOKS_PER_TICK, TICKS_PER_SECOND, Watch


class Clock:
    """A loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay, callback):
        self.waiting.append((self.now + delay, callback))
        return asyncio.Handle(callback, (), self)

    def get_debug(self) -> bool:
        return False

    def tick(self) -> None:
        (self.now, callback), *self.waiting = self.waiting
        callback()


class Thing:
    def __init__(self, seen: Counter, name: int) -> None:
        self.seen, self.name = seen, name

    def check(self, now: float) -> None:
        self.seen[self.name] += 1


@pytest.fixture
def clock():
    return Clock()


def watching(clock, count):
    seen, watch = Counter(), Watch(clock)
    things = [Thing(seen, number) for number in range(count)]
    for thing in things:
        watch.add(thing)
    return watch, things, seen


class Broken:
    def __init__(self) -> None:
        self.looks = 0

    def check(self, now: float) -> None:
        self.looks += 1
        raise ValueError


def test_one_that_fails_costs_nobody_else_a_look(clock, caplog):
    seen, watch, broken = Counter(), Watch(clock), Broken()
    for thing in (Thing(seen, 0), broken, Thing(seen, 1)):
        watch.add(thing)

    for _ in range(3):
        clock.tick()

    assert seen == {0: 3, 1: 3}
    assert broken.looks == 1
    assert "a deadline could not be looked at" in caplog.text


def test_a_few_are_looked_at_in_every_tick(clock):
    _, _, seen = watching(clock, 20)

    for _ in range(3):
        clock.tick()

    assert set(seen.values()) == {3}
    assert clock.now == pytest.approx(0.3)


@pytest.mark.parametrize("count", [LOOKS_PER_TICK + 1, 3000, 20_000])
def test_of_thousands_everybody_is_looked_at_once_a_second(clock, count):
    _, _, seen = watching(clock, count)
    most = 0

    for _ in range(TICKS_PER_SECOND):
        before = seen.total()
        clock.tick()
        most = max(most, seen.total() - before)

    assert len(seen) == count
    assert most <= max(LOOKS_PER_TICK, count // TICKS_PER_SECOND + 1)


def test_who_comes_and_goes_delays_nobody(clock):
    watch, things, seen = watching(clock, 3000)

    for number in range(2 * TICKS_PER_SECOND):
        for thing in things[number * 50 : number * 50 + 50]:
            watch.discard(thing)
            watch.add(Thing(seen, -1))
        clock.tick()

    assert all(seen[thing.name] >= 1 for thing in things[1000:])


def test_with_nobody_left_it_rests(clock):
    watch, things, seen = watching(clock, 2)
    watch.discard(things[0])
    clock.tick()
    watch.discard(things[1])
    clock.tick()

    assert clock.waiting == []
    assert seen == {1: 1}
