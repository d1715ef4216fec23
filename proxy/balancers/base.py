"""What a balancer is: candidates in, one of them out.

It is given only endpoints that may take the request, never none, always in the
same order while nothing changes, and it keeps no more state than that asks for.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from proxy.balancers.load import Load

Chance = Callable[[], float]
"""Random numbers from 0.0 up to but not 1.0."""


class Hint(NamedTuple):
    """What is known about a request that may say where it should go."""

    session: bytes | None = None
    parent: bytes | None = None  # the session that started this one
    model: str | None = None
    is_new: bool = False  # nobody named the session, and nothing was answered in it yet


class Candidate(Protocol):
    """An endpoint as balancers see it."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float:
        """Its share, slow start included; above 0."""

    @property
    def load(self) -> Load: ...


C = TypeVar("C", bound=Candidate)


class Balancer(Protocol):
    """Picks where a request goes."""

    @property
    def has_last_word(self) -> bool:
        """Whether a new conversation begins where it says, though its home may be free.

        Its shares are fixed, or it knows more of the servers than what runs there for us.
        """

    def pick(self, candidates: Sequence[C], hint: Hint, now: float) -> C: ...
