"""Who is next among the requests of one key.

Sessions take turns, so that a session with many requests does not hold up the
others. Main requests go before those of sub-agents, whose parents wait for
them in turn; every now and then a sub-agent goes first, so that none starves.
"""

from collections import OrderedDict
from typing import Generic, TypeVar

# Main requests let through in a row while a sub-agent's request waits. OpenCode starts up
# to a handful of sub-agents from one main request, which then stands still itself.
MAIN_IN_A_ROW = 4

T = TypeVar("T")


class Turns(Generic[T]):
    """Items in sessions that take turns; every operation but `place` takes constant time."""

    __slots__ = ("_count", "_sessions")

    def __init__(self) -> None:
        # the sessions in the order of their turns, each with its items in order
        self._sessions: OrderedDict[str | None, OrderedDict[T, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, session: str | None, item: T) -> None:
        self._sessions.setdefault(session, OrderedDict())[item] = None
        self._count += 1

    def remove(self, session: str | None, item: T) -> None:
        items = self._sessions[session]
        del items[item]
        self._count -= 1
        if not items:
            del self._sessions[session]

    def popleft(self) -> T:
        """The next item; its session goes to the end of the line."""
        session, items = self._sessions.popitem(last=False)
        item, _ = items.popitem(last=False)
        self._count -= 1
        if items:
            self._sessions[session] = items
        return item

    def last(self) -> T:
        """The item that could be missed best: the newest of the session whose turn is farthest off."""
        return next(reversed(next(reversed(self._sessions.values()))))

    def place(self, session: str | None, item: T) -> int:
        """How many are taken up to and including this item, in time linear in its surroundings."""
        own = list(self._sessions[session]).index(item)
        place = own + 1
        turns = own + 1
        for other, items in self._sessions.items():
            if other == session:
                turns -= 1  # who comes behind has had one turn less
            else:
                place += min(len(items), turns)
        return place


class Line(Generic[T]):
    """The waiting requests of one key."""

    __slots__ = ("_main", "_main_in_a_row", "_subagents")

    def __init__(self) -> None:
        self._main: Turns[T] = Turns()
        self._subagents: Turns[T] = Turns()
        self._main_in_a_row = 0

    def __len__(self) -> int:
        return len(self._main) + len(self._subagents)

    def append(self, item: T, session: str | None, *, is_subagent: bool) -> None:
        self._turns(is_subagent).append(session, item)

    def remove(self, item: T, session: str | None, *, is_subagent: bool) -> None:
        self._turns(is_subagent).remove(session, item)

    def popleft(self) -> T:
        is_main_next = len(self._main) and (self._main_in_a_row < MAIN_IN_A_ROW or not len(self._subagents))
        if not is_main_next:
            self._main_in_a_row = 0
            return self._subagents.popleft()
        self._main_in_a_row = self._main_in_a_row + 1 if len(self._subagents) else 0
        return self._main.popleft()

    def last(self) -> T:
        """The item that could be missed best."""
        return (self._subagents if len(self._subagents) else self._main).last()

    def place(self, item: T, session: str | None, *, is_subagent: bool) -> int:
        """How many of this line are taken up to and including this item."""
        own = self._turns(is_subagent).place(session, item)
        if is_subagent:
            return own + min(len(self._main), own * MAIN_IN_A_ROW - self._main_in_a_row)
        return own + min(len(self._subagents), (self._main_in_a_row + own - 1) // MAIN_IN_A_ROW)

    def _turns(self, is_subagent: bool) -> Turns[T]:
        return self._subagents if is_subagent else self._main


class Lengths:
    """Which key waits with the most requests, in constant time."""

    __slots__ = ("_keys", "longest")

    def __init__(self) -> None:
        self.longest = 0
        # keys by length; lengths change by one, so the longest is never far
        self._keys: dict[int, OrderedDict[str | None, None]] = {}

    def changed(self, key: str | None, before: int, after: int) -> None:
        """`key` now waits with `after` requests, one more or less than before."""
        if before:
            peers = self._keys[before]
            del peers[key]
            if not peers:
                del self._keys[before]
        if after:
            self._keys.setdefault(after, OrderedDict())[key] = None
        self.longest = after if after > self.longest or self.longest not in self._keys else self.longest

    def longest_key(self) -> str | None:
        return next(iter(self._keys[self.longest]))
