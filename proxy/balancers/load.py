"""What balancers know of one endpoint: how busy it is and how fast it answers.

The latency is a peak-sensitive average (Finagle's peak EWMA): a slow answer
raises it at once, fast ones lower it little by little, and with time it fades,
so that an endpoint that was slow is tried again. A failure counts as a slow
answer, however fast it came: else the endpoint that refuses quickest would
look like the best.
"""

from dataclasses import dataclass
from math import exp

# How far back the average looks. A coding agent's turns are some 10 s apart, so
# that a busy endpoint is measured several times within it.
DECAY_SECONDS = 30.0

# What a failed attempt counts as: longer than any healthy time to first byte but a huge prompt's.
FAILURE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine says of itself."""

    running: float
    waiting: float
    cache_usage: float | None = None  # 0 to 1


class Load:
    """One endpoint's requests in flight and its time to first byte."""

    __slots__ = (
        "_measured_at",
        "began",
        "ended",
        "engine",
        "engine_at",
        "engine_in_flight",
        "failed",
        "in_flight",
        "latency",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.began = 0
        self.ended = 0
        self.failed = 0
        self.latency = 0.0  # seconds to the first byte; 0.0 is unknown
        self._measured_at = 0.0
        self.engine: EngineLoad | None = None  # what its metrics said at `engine_at`,
        self.engine_at = 0.0
        self.engine_in_flight = 0  # when so many of ours were under way

    def saw(self, engine: EngineLoad, now: float) -> None:
        """Take in what its engine said just now."""
        self.engine, self.engine_at, self.engine_in_flight = engine, now, self.in_flight

    def begin(self) -> None:
        self.in_flight += 1
        self.began += 1

    def end(self) -> None:
        self.in_flight -= 1
        self.ended += 1

    def measure(self, seconds: float, now: float) -> None:
        """Take one time to first byte into the average."""
        if seconds >= self.latency:
            self.latency = seconds
        else:
            kept = exp((self._measured_at - now) / DECAY_SECONDS)
            self.latency = self.latency * kept + seconds * (1.0 - kept)
        self._measured_at = now

    def fail(self, now: float) -> None:
        """Take a failure into the average."""
        self.failed += 1
        self.measure(FAILURE_SECONDS, now)

    def latency_at(self, now: float) -> float:
        """The average as it has faded by now."""
        return self.latency * exp((self._measured_at - now) / DECAY_SECONDS)
