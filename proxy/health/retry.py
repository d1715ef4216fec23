"""Whether an attempt is followed by another, and after how long.

Only ever asked while nothing has gone to the client. A request that cannot have
run needs no permission; everything else may run twice, so it is tried again
only where the configuration lists it, within a budget, and after a pause that
is drawn, so that clients that failed together don't come back together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from proxy.health.budget import Budget

FIRST_BYTE_TIMEOUT = "first_byte_timeout"
NO_ANSWER = "no_answer"
UNRESPONSIVE = "unresponsive"
ANY_5XX = "5xx"

_OF_SILENCE = frozenset((FIRST_BYTE_TIMEOUT, NO_ANSWER, UNRESPONSIVE))

# Beyond the Retry-After that all clients were given alike, up to a tenth of it is added by chance.
RETRY_AFTER_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """What the configuration says; attempts are counted from 1."""

    max_retries: int = 3
    retry_on: frozenset[int | str] = frozenset((429, 502, 503, 504))
    initial_wait: float = 1.0
    max_wait: float = 10.0
    multiplier: float = 2.0
    budget: float = 0.2


class RetryPolicy:
    """One pool's; without settings nothing that may have run is tried again."""

    __slots__ = ("_budget", "_chance", "settings")

    def __init__(self, settings: RetrySettings | None, chance: Callable[[], float]) -> None:
        self.settings = settings
        self._chance = chance
        self._budget = Budget(settings.budget if settings else 0.0)

    @property
    def follows_silence(self) -> bool:
        """Whether an endpoint that says nothing may be followed by another."""
        return self.settings is not None and not _OF_SILENCE.isdisjoint(self.settings.retry_on)

    @property
    def leaves_unresponsive(self) -> bool:
        """Whether a request is taken away from an endpoint that answers nobody."""
        return self.settings is not None and UNRESPONSIVE in self.settings.retry_on

    def began(self, now: float) -> None:
        """A request came; what it may cost in retries is a share of all that came."""
        if self.settings is not None:
            self._budget.earn(now)

    def wait_after_status(
        self, status: int, retry_after: float | None, made: int, *, now: float, elsewhere: bool
    ) -> float | None:
        """Seconds until the next attempt after `made` attempts, or None to pass this answer on.

        `elsewhere`: it goes to another endpoint, which need not be waited for.
        """
        settings = self.settings
        if settings is None or not self._is_listed(settings, status):
            return None
        return self._next(settings, retry_after, made, now=now, elsewhere=elsewhere)

    def wait_after_timeout(self, made: int, *, now: float, elsewhere: bool) -> float | None:
        """As `wait_after_status`, for an endpoint that sent no byte in time."""
        return self._wait_after(FIRST_BYTE_TIMEOUT, made, now=now, elsewhere=elsewhere)

    def wait_after_no_answer(self, made: int, *, now: float, elsewhere: bool) -> float | None:
        """As `wait_after_status`, for a connection that ended before its answer began."""
        return self._wait_after(NO_ANSWER, made, now=now, elsewhere=elsewhere)

    def may_leave_unresponsive(self, made: int, *, now: float) -> bool:
        """Whether a request may go elsewhere from an endpoint that answers nobody; it is counted."""
        return self._wait_after(UNRESPONSIVE, made, now=now, elsewhere=True) is not None

    def _wait_after(self, cause: str, made: int, *, now: float, elsewhere: bool) -> float | None:
        settings = self.settings
        if settings is None or cause not in settings.retry_on:
            return None
        return self._next(settings, None, made, now=now, elsewhere=elsewhere)

    def _is_listed(self, settings: RetrySettings, status: int) -> bool:
        return status in settings.retry_on or (status >= 500 and ANY_5XX in settings.retry_on)

    def _next(
        self, settings: RetrySettings, retry_after: float | None, made: int, *, now: float, elsewhere: bool
    ) -> float | None:
        if made > settings.max_retries:
            return None
        wait = 0.0 if elsewhere else self._wait(settings, retry_after, made)
        # Longer than that the client can wait better itself than on a connection that we hold open.
        if wait > settings.max_wait or not self._budget.spend(now):
            return None
        return wait

    def _wait(self, settings: RetrySettings, retry_after: float | None, made: int) -> float:
        longest = min(settings.initial_wait * settings.multiplier ** (made - 1), settings.max_wait)
        wait = longest * self._chance()
        if retry_after is None:
            return wait
        if retry_after > settings.max_wait:
            return retry_after
        asked = retry_after * (1.0 + RETRY_AFTER_JITTER * self._chance())
        return min(max(wait, asked), settings.max_wait)


def retry_after_seconds(retry_after: bytes | None, retry_after_ms: bytes | None, wall: float) -> float | None:
    """What an answer asks to wait: milliseconds first, then seconds or a date; None if unreadable."""
    if retry_after_ms is not None and (milliseconds := _number(retry_after_ms)) is not None:
        return milliseconds / 1000.0
    if retry_after is None:
        return None
    if (seconds := _number(retry_after)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(retry_after.decode("ascii"))
        return max(date.timestamp() - wall, 0.0)
    except (ValueError, OverflowError):
        return None


def _number(value: bytes) -> float | None:
    """A plain non-negative decimal of sane length."""
    value = value.strip()
    if len(value) > 20 or not value.replace(b".", b"", 1).isdigit():
        return None
    return float(value)
