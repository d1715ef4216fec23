"""Waiting in front of a busy pool: bounded, fair, and nobody is forgotten."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.limiters.queue import LONGEST_WAIT, STRANGERS_IN_A_ROW, UNKNOWN_WAIT, Full, Queue


class Desk:
    """A queue, and the order in which it let requests through."""

    def __init__(self, capacity, max_waiting=100):
        self.queue = Queue(capacity, max_waiting)
        self.order = []
        self.given_up = []
        self.tickets = {}

    def enter(self, name, key=None, session=None, *, is_subagent=False, now=0.0):
        def decided(is_admitted):
            (self.order if is_admitted else self.given_up).append(name)

        ticket = self.queue.enter(key or name[0], session, is_subagent=is_subagent, now=now, decided=decided)
        if not isinstance(ticket, Full):
            self.tickets[name] = ticket
            if ticket.is_admitted:
                self.order.append(name)
        return ticket

    def leave(self, *names, now=0.0):
        for name in names:
            self.tickets[name].leave(now)

    def serve_all(self):
        """Let requests end in the order they began until nobody is left."""
        for name in self.order:
            self.tickets[name].leave(0.0)
        return self.order


def test_while_there_is_room_everybody_is_admitted_at_once():
    desk = Desk(capacity=2)

    assert desk.enter("a1").is_admitted
    assert desk.enter("a2").is_admitted
    assert not desk.enter("a3").is_admitted
    assert (desk.queue.running, desk.queue.waiting) == (2, 1)


def test_a_slot_that_frees_up_goes_to_who_waits():
    desk = Desk(capacity=1)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)

    desk.leave("a1")
    assert desk.order == ["a1", "a2"]
    assert desk.tickets["a2"].is_admitted
    assert not desk.tickets["a2"].is_waiting


def test_keys_take_turns():
    desk = Desk(capacity=1)
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        desk.enter(name)

    assert desk.serve_all() == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_key_with_nothing_running_goes_before_those_that_have():
    desk = Desk(capacity=3)
    for number in range(50):
        desk.enter(f"a{number}")
    desk.enter("b1")

    desk.leave("a0")
    assert desk.order[-1] == "b1"


def test_who_comes_back_quickly_is_no_stranger():
    desk = Desk(capacity=1)
    for name in ("a1", "a2", "a3", "c1", "c2"):
        desk.enter(name)
    desk.enter("b1")
    desk.leave("a1")  # c1
    desk.leave("c1")  # b1
    desk.leave("b1")  # a2
    desk.enter("b2")

    assert desk.serve_all()[-3:] == ["c2", "b2", "a3"]


def test_inside_a_key_sessions_take_turns_and_main_requests_go_first():
    desk = Desk(capacity=1)
    desk.enter("a0")
    for number in range(3):
        desk.enter(f"a-sub{number}", session="child", is_subagent=True)
    for number in range(3):
        desk.enter(f"a-one{number}", session="one")
    desk.enter("a-two0", session="two")

    assert desk.serve_all() == [
        *("a0", "a-one0", "a-two0", "a-one1", "a-one2"),
        *("a-sub0", "a-sub1", "a-sub2"),
    ]


def test_who_stops_waiting_is_gone_at_once():
    desk = Desk(capacity=1, max_waiting=2)
    for name in ("a1", "b1", "c1"):
        desk.enter(name)

    desk.leave("b1", "b1")
    assert desk.queue.waiting == 1
    assert desk.queue.position(desk.tickets["c1"]) == 1
    desk.leave("a1")
    assert desk.order == ["a1", "c1"]


def test_leaving_twice_frees_one_slot():
    desk = Desk(capacity=1)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)

    desk.leave("a1", "a1")

    assert desk.order == ["a1", "a2"]
    assert desk.queue.running == 1


def test_a_full_queue_refuses_and_says_when_to_come_back():
    desk = Desk(capacity=1, max_waiting=2)
    for name in ("a1", "a2", "a3"):
        desk.enter(name)

    assert desk.enter("a4") == Full(UNKNOWN_WAIT)
    desk.leave("a1", now=4.0)
    desk.enter("a5", now=4.0)
    assert desk.enter("a6") == Full(8.0)
    desk.leave("a2", now=4000.0)
    desk.enter("a7", now=4000.0)
    assert desk.enter("a8") == Full(LONGEST_WAIT)


def test_a_queue_with_no_place_to_wait_refuses_whatever_cannot_run():
    desk = Desk(capacity=1, max_waiting=0)
    desk.enter("a1")

    assert isinstance(desk.enter("b1"), Full)


def test_in_a_full_queue_the_key_that_waits_with_the_most_gives_up_its_last():
    desk = Desk(capacity=1, max_waiting=4)
    for name in ("a0", "a1", "a2", "a3", "a4"):
        desk.enter(name)

    desk.enter("b1")
    desk.enter("b2")
    assert desk.given_up == ["a4", "a3"]
    assert isinstance(desk.enter("b3"), Full)  # two each: nobody waits with more
    desk.enter("c1")
    assert len(desk.given_up) == 3

    desk.leave("a4")  # given up already
    assert desk.queue.waiting == 4
    assert sorted(desk.serve_all()) == sorted({"a0", "a1", "a2", "b1", "b2", "c1"} - set(desk.given_up))


def test_the_wait_is_told_from_the_place_in_line_and_the_usual_service_time():
    desk = Desk(capacity=2)
    for name in ("a1", "a2", "a3", "a4"):
        desk.enter(name)
    assert desk.queue.expected_wait(desk.tickets["a4"]) == 0.0

    desk.leave("a1", now=6.0)

    assert desk.queue.position(desk.tickets["a3"]) == 0
    assert desk.queue.expected_wait(desk.tickets["a4"]) == pytest.approx(3.0)


def test_more_capacity_lets_more_in_and_less_lets_nobody_out():
    desk = Desk(capacity=1)
    for name in ("a1", "a2", "a3", "a4"):
        desk.enter(name)

    desk.queue.resize(3, 100, 0.0)
    assert desk.order == ["a1", "a2", "a3"]
    desk.queue.resize(1, 100, 0.0)
    desk.leave("a1", "a2")
    assert desk.queue.running == 1
    assert not desk.tickets["a4"].is_admitted


def test_an_endless_procession_of_strangers_does_not_shut_out_who_waited_before():
    desk = Desk(capacity=1)
    desk.enter("a0")
    desk.enter("a1")
    current = "a0"

    for number in range(STRANGERS_IN_A_ROW + 1):
        desk.enter(f"s{number}", key=f"stranger {number}")
        desk.leave(current)
        current = desk.order[-1]

    assert current == "a1"


def test_strangers_among_themselves_keep_their_order():
    desk = Desk(capacity=1)
    names = [f"s{number}" for number in range(2 * STRANGERS_IN_A_ROW + 3)]
    for name in names:
        desk.enter(name, key=name)

    assert desk.serve_all() == names


def test_strangers_that_were_served_are_not_remembered_for_ever():
    desk = Desk(capacity=1, max_waiting=10)
    for name in ("a0", "a1", "b1", "c1"):
        desk.enter(name)
    current = "a0"

    for number in range(10_000):
        desk.enter(f"s{number}", key=f"stranger {number}")
        if number % 10 == 0:
            desk.enter(f"{'abc'[number % 3]}x{number}")
        desk.leave(current)
        current = desk.order[-1]

    assert desk.queue.waiting > 0
    assert len(desk.queue._rotation) <= (STRANGERS_IN_A_ROW + 1) * 4


@settings(max_examples=40, deadline=None)
@given(capacity=st.integers(1, 8), rivals=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_next_to_fifty_parallel_requests_one_waits_at_most_one_service_time(capacity, rivals, seed):
    """One busy key; with more of them, one of each may come in between."""
    chance = random.Random(seed)
    queue = Queue(capacity, 500)
    longest = 1.0
    ends, entered, waits = [], {}, []
    now = 0.0

    def begin(key, number):
        ticket = None

        def decided(is_admitted):
            assert is_admitted
            started(key, number, ticket)

        entered[key, number] = now
        ticket = queue.enter(key, str(number), now=now, decided=decided)
        if ticket.is_admitted:
            started(key, number, ticket)

    def started(key, number, ticket):
        if key == "slow":
            waits.append(now - entered[key, number])
        heapq.heappush(ends, (now + chance.uniform(0.1, longest), chance.random(), key, number, ticket))

    for rival in range(rivals):
        for number in range(50):
            begin(f"fast {rival}", number)
    begin("slow", 0)
    for _ in range(600):
        now, _, key, number, ticket = heapq.heappop(ends)
        ticket.leave(now)
        begin(key, number)  # everybody asks again at once

    assert len(waits) > 5
    assert max(waits) <= rivals * longest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.booleans()), max_size=40))
def test_the_position_told_is_the_position_got(requests):
    desk = Desk(capacity=2)
    for number, (key, session, is_subagent) in enumerate(requests):
        desk.enter(f"{key}{number}", session=session, is_subagent=is_subagent)
    waiting = [name for name, ticket in desk.tickets.items() if ticket.is_waiting]

    told = {name: desk.queue.position(desk.tickets[name]) for name in waiting}

    got = {name: place for place, name in enumerate(desk.serve_all()[2:], start=1)}
    assert told == got


class Machine(RuleBasedStateMachine):
    """Whatever comes, leaves or is refused: slots are full while somebody waits, and nobody is lost."""

    CAPACITY, MAX_WAITING = 3, 6

    def __init__(self):
        super().__init__()
        self.queue = Queue(self.CAPACITY, self.MAX_WAITING)
        self.inside = {}
        self.numbers = iter(range(10**6))

    @rule(key=st.sampled_from("abc"), session=st.sampled_from("xy"), is_subagent=st.booleans())
    def enter(self, key, session, is_subagent):
        number = next(self.numbers)
        heard = []
        is_full = self.queue.waiting >= self.MAX_WAITING

        ticket = self.queue.enter(key, session, is_subagent=is_subagent, now=0.0, decided=heard.append)

        if isinstance(ticket, Full):
            assert is_full
        else:
            self.inside[number] = ticket, heard, ticket.is_admitted

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data):
        number = data.draw(st.sampled_from(sorted(self.inside)))
        ticket, _, _ = self.inside.pop(number)

        ticket.leave(1.0)
        ticket.leave(2.0)

    @rule(capacity=st.integers(1, 5))
    def resize(self, capacity):
        self.queue.resize(capacity, self.MAX_WAITING, 1.0)
        self.CAPACITY = capacity

    @invariant()
    def the_books_balance(self):
        for number, (_ticket, heard, _) in list(self.inside.items()):
            if heard == [False]:
                del self.inside[number]
        running = [ticket for ticket, _, _ in self.inside.values() if ticket.is_admitted]
        waiting = [ticket for ticket, _, _ in self.inside.values() if ticket.is_waiting]
        assert len(running) + len(waiting) == len(self.inside)
        assert (self.queue.running, self.queue.waiting) == (len(running), len(waiting))
        assert not waiting or len(running) >= self.CAPACITY
        for ticket, heard, at_once in self.inside.values():
            assert heard == ([True] if ticket.is_admitted and not at_once else [])

    def teardown(self):
        for ticket, _, _ in list(self.inside.values()):
            ticket.leave(3.0)
        assert (self.queue.running, self.queue.waiting, self.queue._running) == (0, 0, {})


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
