"""The one place that reads time; everything below the I/O floors gets it handed in.

`monotonic` measures spans and never jumps, `wall` dates records and expiries. A wall
clock may be set by an hour or by a year; what must not take its records for old then
asks an `anchored` one.
"""

from collections.abc import Callable
from time import monotonic, time

Clock = Callable[[], float]

wall: Clock = time


def anchored(wall: Clock = wall, monotonic: Clock = monotonic) -> Clock:
    """The time of day as of now, going on undisturbed by whoever sets the clock."""
    start = wall() - monotonic()
    return lambda: start + monotonic()


__all__ = ["Clock", "anchored", "monotonic", "wall"]
