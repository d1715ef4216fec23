"""The one place that reads time; everything below the I/O floors gets it handed in.

`monotonic` measures spans and never jumps, `wall` dates records and expiries.
"""

from collections.abc import Callable
from time import monotonic, time

Clock = Callable[[], float]

wall: Clock = time

__all__ = ["Clock", "monotonic", "wall"]
