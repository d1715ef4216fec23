"""Takes an endpoint out after failures of real requests, and lets it back in gently.

Closed, it counts. Open, nothing passes. Half open, a few requests try the
endpoint: a success closes it, a failure opens it again. What a request reports
counts only for the state it began in, so a stream that outlived an outage says
nothing about the recovery.

Failing to connect opens at once, because nothing will run there and every
request would pay the connect time-out; but first for a second only, since a
restarting server should be found soon.
"""

from dataclasses import dataclass
from enum import Enum

from proxy.health.outcome import FAILURES, SUCCESSES, Outcome
from proxy.health.window import Window

# A server that refuses is asked again after a second, then two, then four, until `open_for`.
FIRST_REFUSAL_SECONDS = 1.0


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """`failures` in a row, or `error_rate` of at least `min_requests` within `window` seconds, open it."""

    failures: int = 5
    error_rate: float = 0.5
    min_requests: int = 20
    window: float = 30.0
    open_for: float = 10.0
    probes: int = 1


class Breaker:
    """One endpoint's breaker; without settings it never opens."""

    __slots__ = ("_failures", "_probes_out", "_refusals", "_window", "retry_at", "settings", "state", "term")

    def __init__(self, settings: BreakerSettings | None) -> None:
        self.settings = settings
        self.state = State.CLOSED
        self.term = 0  # counts the changes of state; a request belongs to the term it began in
        self.retry_at = 0.0
        self._window = Window(settings.window if settings else 1.0)
        self._failures = 0
        self._refusals = 0
        self._probes_out = 0

    def admits(self, now: float) -> bool:
        """Whether a request may be sent now; an open breaker half-opens when its time is over."""
        if self.state is State.CLOSED:
            return True
        if now >= self.retry_at:
            # Half open with no verdict for that long: a probe is slow, which is no failure. Try another.
            if self.state is State.OPEN:
                self._enter(State.HALF_OPEN)
            self._probes_out = 0
            self.retry_at = now + self._open_for
        return self.state is State.HALF_OPEN and self._probes_out < self._probes

    def begin(self) -> int:
        """A request goes out; returns the term to `record` its outcome with."""
        if self.state is State.HALF_OPEN:
            self._probes_out += 1
        return self.term

    def record(self, outcome: Outcome, now: float, term: int) -> bool:
        """Take one request's outcome; return whether the state changed."""
        if term != self.term or self.settings is None:
            return False
        if outcome in SUCCESSES:
            return self._succeeded(now)
        if outcome in FAILURES:
            return self._failed(outcome, now, self.settings)
        self._probes_out = max(self._probes_out - 1, 0)  # the client left: no verdict, the slot is free again
        return self.state is State.HALF_OPEN

    def reached(self) -> bool:
        """Somebody could connect, so refusals are over; return whether the state changed."""
        if self.state is State.CLOSED or not self._refusals:
            return False
        self._enter(State.CLOSED)
        return True

    @property
    def _open_for(self) -> float:
        return self.settings.open_for if self.settings else 0.0

    @property
    def _probes(self) -> int:
        return self.settings.probes if self.settings else 1

    def _succeeded(self, now: float) -> bool:
        self._failures = 0
        if self.state is State.CLOSED:
            self._window.count(now, failed=False)
            return False
        self._enter(State.CLOSED)
        return True

    def _failed(self, outcome: Outcome, now: float, settings: BreakerSettings) -> bool:
        if outcome is Outcome.CONNECT_FAILED:
            pause = FIRST_REFUSAL_SECONDS * 2.0 ** min(self._refusals, 10)
            self._refusals += 1
            self._open(now, min(pause, settings.open_for))
            return True
        self._refusals = 0
        if self.state is State.CLOSED:
            self._failures += 1
            self._window.count(now, failed=True)
            if self._failures < settings.failures and not self._rate_is_bad(settings):
                return False
        self._open(now, settings.open_for)
        return True

    def _rate_is_bad(self, settings: BreakerSettings) -> bool:
        total, failed = self._window.total, self._window.failed
        return total >= settings.min_requests and failed >= settings.error_rate * total

    def _open(self, now: float, seconds: float) -> None:
        self._enter(State.OPEN)
        self.retry_at = now + seconds

    def _enter(self, state: State) -> None:
        self.state = state
        self.term += 1
        self._probes_out = 0
        self._failures = 0
        if state is State.CLOSED:
            self._refusals = 0
            self._window.clear()
