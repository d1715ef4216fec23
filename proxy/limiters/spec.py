"""What is configured, and the shape a limiter gets from it: `LimitSpec` is what people write."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Protocol

from proxy.limiters.shapes import Plan, Rate, Scope

SCOPES: tuple[Scope, ...] = ("global", "per_key", "per_user", "per_model", "per_ip")

SECONDS_PER_MINUTE = 60.0
# What a limit may be at least, where it is one, and at most: beyond, sums lose single requests
# and stores elsewhere cannot take the numbers. Keys come from anywhere, and one with an absurd
# limit must not harm the others.
LEAST, MOST = 1e-6, 10**12
# Plans are shared, because making one takes 30 us and a KiB: people sell a handful of tiers.
MAX_PLANS = 4096
# Two seconds' worth of requests at once, as the Go LLMProxy allows.
BURST_SECONDS = 2.0


class Limiting(Protocol):
    """Whatever carries limits; None says nothing, 0 says no limit."""

    def __hash__(self) -> int: ...

    @property
    def requests_per_second(self) -> float | None: ...

    @property
    def requests_per_minute(self) -> float | None: ...

    @property
    def burst_size(self) -> int | None: ...

    @property
    def tokens_per_minute(self) -> float | None: ...

    @property
    def max_concurrent(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """Limits of one subject, as `Limiting`."""

    requests_per_second: float | None = None
    requests_per_minute: float | None = None
    burst_size: int | None = None
    tokens_per_minute: float | None = None
    max_concurrent: int | None = None


def merged(own: Limiting | None, base: Limiting | None) -> LimitSpec:
    """A subject's own limits, and the base's where those say nothing."""
    own, base = own or LimitSpec(), base or LimitSpec()
    is_paced = own.requests_per_second is not None or own.requests_per_minute is not None
    return LimitSpec(
        requests_per_second=_first(own.requests_per_second, base.requests_per_second),
        requests_per_minute=_first(own.requests_per_minute, base.requests_per_minute),
        # a burst belongs to the rate it was written for
        burst_size=own.burst_size if is_paced or own.burst_size is not None else base.burst_size,
        tokens_per_minute=_first(own.tokens_per_minute, base.tokens_per_minute),
        max_concurrent=base.max_concurrent if own.max_concurrent is None else own.max_concurrent,
    )


@dataclass(frozen=True, slots=True)
class ScopeSpecs:
    """What is configured for each scope; None limits nothing there."""

    global_: LimitSpec | None = None
    per_key: LimitSpec | None = None
    per_user: LimitSpec | None = None
    per_model: LimitSpec | None = None
    per_ip: LimitSpec | None = None

    def in_order(self) -> tuple[LimitSpec | None, ...]:
        """In the order of SCOPES."""
        return self.global_, self.per_key, self.per_user, self.per_model, self.per_ip

    def count_tokens(self) -> bool:
        return any(spec is not None and spec.tokens_per_minute for spec in self.in_order())


@lru_cache(maxsize=MAX_PLANS)
def plan_of(scope: Scope, own: Limiting | None, base: Limiting | None) -> Plan:
    """The plan of a subject with such limits over its scope's: one for all that are alike."""
    return plan(scope, merged(own, base))


def plan(scope: Scope, spec: LimitSpec) -> Plan:
    name, spec = scope.removeprefix("per_"), _bounded(spec)
    max_concurrent = int(spec.max_concurrent or 0)
    requests = tuple(_request_rates(scope, name, spec))
    tokens = _token_rate(scope, name, spec)
    token_rates = [tokens] if tokens else []
    rates = (*requests, *token_rates)
    policies = [rate.policy() for rate in rates]
    if max_concurrent:
        policies.insert(0, f'"{name}-concurrent";q={max_concurrent};qu="concurrent-requests"')
    shape = max_concurrent, [rate.shape for rate in requests], [rate.shape for rate in token_rates]
    slots = f'"{name}-concurrent";r='
    return Plan(scope, name, max_concurrent, requests, tokens, ", ".join(policies), rates, slots, shape)


def _bounded(spec: LimitSpec) -> LimitSpec:
    return LimitSpec(
        _within(spec.requests_per_second),
        _within(spec.requests_per_minute),
        min(spec.burst_size, MOST) if spec.burst_size else spec.burst_size,
        _within(spec.tokens_per_minute),
        min(spec.max_concurrent, MOST) if spec.max_concurrent else spec.max_concurrent,
    )


def _within(rate: float | None) -> float | None:
    return min(max(rate, LEAST), MOST) if rate else rate


def _request_rates(scope: Scope, name: str, spec: LimitSpec) -> list[Rate]:
    """One bucket per second, one per minute; the burst belongs to the quicker one."""
    rates = []
    burst = spec.burst_size
    if spec.requests_per_second:
        held = burst or max(1, ceil(spec.requests_per_second * BURST_SECONDS))
        rates.append(
            Rate(
                scope,
                "requests",
                f"{name}-rps",
                limit=spec.requests_per_second,
                per="second",
                rate=spec.requests_per_second,
                burst=float(held),
            )
        )
        burst = None
    if spec.requests_per_minute:
        # A fresh key may use its whole minute at once.
        held = burst or max(1, ceil(spec.requests_per_minute))
        rates.append(
            Rate(
                scope,
                "requests",
                f"{name}-rpm",
                limit=spec.requests_per_minute,
                per="minute",
                rate=spec.requests_per_minute / SECONDS_PER_MINUTE,
                burst=float(held),
            )
        )
    return rates


def _token_rate(scope: Scope, name: str, spec: LimitSpec) -> Rate | None:
    if not spec.tokens_per_minute:
        return None
    return Rate(
        scope,
        "tokens",
        f"{name}-tpm",
        limit=spec.tokens_per_minute,
        per="minute",
        rate=spec.tokens_per_minute / SECONDS_PER_MINUTE,
        burst=float(max(1, ceil(spec.tokens_per_minute))),
    )


def _first(value: float | None, default: float | None) -> float | None:
    return default if value is None else value
