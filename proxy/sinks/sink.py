"""What a sink is: the place that usage records go to in the end.

A sink gets records as lines of JSON (their nested form) and says which of them it
could not deliver. It never retries by itself; its courier does, for days if need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """The outcome of one try. `refused` are those of `left` that the receiver itself turned down."""

    left: Sequence[bytes] = ()
    refused: Sequence[bytes] = ()
    reason: str = ""
    retry_after: float | None = None  # seconds, when the receiver named a time


class Sink(Protocol):
    @property
    def name(self) -> str: ...

    async def deliver(self, lines: Sequence[bytes], *, singly: bool = False) -> Delivery:
        """Try to deliver `lines`, one by one if `singly`; raise nothing for what a receiver does."""

    async def close(self) -> None: ...
