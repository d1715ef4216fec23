"""A place to wait in front of a pool that is busy, fair to everyone in it.

Keys take turns, and a key that has nothing running goes before those that
have: next to a key with fifty requests in parallel, one that sends a single
request waits for the next free slot and not for fifty. When the queue is full
the key that waits with the most requests gives up its last one.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from proxy.limiters.lines import Lengths, Line

# Share of the newest service time in the average: about the last ten requests count.
WEIGHT = 0.2
# Keys with nothing running that may go first in a row while others wait, so that
# an endless procession of strangers cannot shut out who was here before.
STRANGERS_IN_A_ROW = 8
# Seconds to come back after when the queue is full and nothing is known yet.
UNKNOWN_WAIT = 1.0
LONGEST_WAIT = 60.0

# Told once to a ticket that waits: admitted (True), or given up for another (False).
Decided = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Full:
    """No place to wait in; come back after `retry_after` seconds."""

    retry_after: float


class Ticket:
    """One request's place: it waits, is admitted, and leaves exactly once."""

    __slots__ = ("_decided", "_queue", "admitted_at", "is_subagent", "is_waiting", "key", "session")

    def __init__(
        self, queue: "Queue", key: str | None, session: str | None, *, is_subagent: bool, decided: Decided
    ) -> None:
        self._queue: Queue | None = queue
        self._decided = decided
        self.key = key
        self.session = session
        self.is_subagent = is_subagent
        self.is_waiting = False
        self.admitted_at: float | None = None

    @property
    def is_admitted(self) -> bool:
        return self.admitted_at is not None

    def leave(self, now: float) -> None:
        """End, or stop waiting; the second and later calls do nothing."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue._leave(self, now)


class Queue:
    """At most `capacity` requests run and `max_waiting` wait."""

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._running: dict[str | None, int] = {}
        # Keys in the order of their turns. Strangers have nothing running and were not here
        # before; after their turn they stay in the rotation for a round, even with nothing
        # waiting, so that coming back quickly does not make a stranger of anyone. Between two
        # keys that wait there are at most STRANGERS_IN_A_ROW that do not.
        self._strangers: OrderedDict[str | None, Line[Ticket]] = OrderedDict()
        self._rotation: OrderedDict[str | None, Line[Ticket]] = OrderedDict()
        self._strangers_in_a_row = 0
        self._lengths = Lengths()
        self._service_time = 0.0
        self.running = 0
        self.waiting = 0

    def enter(
        self,
        key: str | None,
        session: str | None = None,
        *,
        is_subagent: bool = False,
        now: float,
        decided: Decided,
    ) -> Ticket | Full:
        """A ticket that is admitted or waits; a waiting one's `decided` is called once, later."""
        ticket = Ticket(self, key, session, is_subagent=is_subagent, decided=decided)
        if not self.waiting and self.running < self._capacity:
            self._admit(ticket, now)
            return ticket
        if self.waiting >= self._max_waiting and not self._make_room(key):
            return Full(self._drain_time())
        self._append(ticket)
        return ticket

    def resize(self, capacity: int, max_waiting: int, now: float) -> None:
        """Follow a new configuration; who waits already may stay."""
        self._capacity = capacity
        self._max_waiting = max_waiting
        self._admit_waiting(now)

    def position(self, ticket: Ticket) -> int:
        """How many are admitted up to and including this one if nobody comes or leaves; 0 if it runs.

        Exact unless more than STRANGERS_IN_A_ROW keys go first; linear in the
        number of keys that wait, for headers and not for decisions.
        """
        if not ticket.is_waiting:
            return 0
        own = self._line(ticket.key)
        assert own is not None
        turns = place = own.place(ticket, ticket.session, is_subagent=ticket.is_subagent)
        for key, line in (*self._strangers.items(), *self._rotation.items()):
            if key == ticket.key:
                turns -= 1  # who comes behind has had one turn less
            else:
                place += min(len(line), turns)
        return place

    def expected_wait(self, ticket: Ticket) -> float:
        """Seconds until a waiting ticket is admitted; 0.0 while nothing is known yet."""
        return self.position(ticket) * self._service_time / self._capacity

    def _leave(self, ticket: Ticket, now: float) -> None:
        if ticket.admitted_at is None:
            self._remove(ticket)
            return
        self.running -= 1
        self._count_running(ticket.key, -1)
        served = now - ticket.admitted_at
        self._service_time += (served - self._service_time) * (WEIGHT if self._service_time else 1.0)
        self._admit_waiting(now)

    def _admit_waiting(self, now: float) -> None:
        while self.waiting and self.running < self._capacity:
            ticket = self._next()
            self._admit(ticket, now)
            ticket._decided(True)

    def _admit(self, ticket: Ticket, now: float) -> None:
        ticket.admitted_at = now
        self.running += 1
        self._count_running(ticket.key, 1)

    def _next(self) -> Ticket:
        """Take the next ticket out of the queue; its key goes to the end of the rotation."""
        key, line = self._next_line()
        ticket = line.popleft()
        self._rotation[key] = line
        self._taken(ticket, line)
        return ticket

    def _next_line(self) -> tuple[str | None, Line[Ticket]]:
        if self._strangers and self._strangers_in_a_row < STRANGERS_IN_A_ROW:
            self._strangers_in_a_row += 1
            return self._strangers.popitem(last=False)
        self._strangers_in_a_row = 0
        while self._rotation:
            key, line = self._rotation.popitem(last=False)
            if len(line):
                return key, line
        return self._strangers.popitem(last=False)

    def _append(self, ticket: Ticket) -> None:
        ticket.is_waiting = True
        self.waiting += 1
        line = self._line(ticket.key)
        if line is None:
            line = Line()
            is_stranger = ticket.key not in self._running
            (self._strangers if is_stranger else self._rotation)[ticket.key] = line
        line.append(ticket, ticket.session, is_subagent=ticket.is_subagent)
        self._lengths.changed(ticket.key, len(line) - 1, len(line))

    def _remove(self, ticket: Ticket) -> None:
        """Take a ticket out that is not next."""
        line = self._line(ticket.key)
        assert line is not None
        line.remove(ticket, ticket.session, is_subagent=ticket.is_subagent)
        if not len(line):
            self._strangers.pop(ticket.key, None)
        self._taken(ticket, line)

    def _taken(self, ticket: Ticket, line: Line[Ticket]) -> None:
        ticket.is_waiting = False
        self.waiting -= 1
        self._lengths.changed(ticket.key, len(line) + 1, len(line))
        if not self.waiting:
            self._rotation.clear()
            self._strangers_in_a_row = 0

    def _make_room(self, key: str | None) -> bool:
        """Give up the last request of the key that waits with the most, unless that is this one."""
        line = self._line(key)
        if self._lengths.longest <= (0 if line is None else len(line)) + 1:
            return False
        longest = self._line(self._lengths.longest_key())
        assert longest is not None
        given_up = longest.last()
        self._remove(given_up)
        given_up._queue = None
        given_up._decided(False)
        return True

    def _line(self, key: str | None) -> Line[Ticket] | None:
        line = self._strangers.get(key)
        return self._rotation.get(key) if line is None else line

    def _count_running(self, key: str | None, change: int) -> None:
        count = self._running.get(key, 0) + change
        if count:
            self._running[key] = count
        else:
            del self._running[key]

    def _drain_time(self) -> float:
        """Seconds until everybody who waits now has been admitted."""
        known = self.waiting * self._service_time / self._capacity
        return min(known or UNKNOWN_WAIT, LONGEST_WAIT)
