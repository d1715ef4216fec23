"""Records that were written together, on their way to every sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Batch:
    """Lines, and where they are kept: in the spool's rows up to `row`, or (no `home`) in memory.

    A batch may move from memory into a spool while a courier carries it; the courier hands
    back the same object, so that its receipt goes to the right place.
    """

    lines: Sequence[bytes]
    time: float
    home: object = None
    row: int = 0
    waiting: set[str] = field(default_factory=set)  # of a batch in memory: the sinks still to have it
