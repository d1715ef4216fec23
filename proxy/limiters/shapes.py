"""The shape of limiters, worked out once: how fast each bucket fills, what it holds, what headers call it."""

from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from proxy.limiters.bucket import EPSILON

Kind = Literal["requests", "tokens", "concurrent"]
Scope = Literal["global", "per_key", "per_user", "per_model", "per_ip"]

# A bucket's name, rate and burst.
Shape = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Rate:
    """One bucket: `limit` units per `per`, filling at `rate` per second up to `burst`."""

    scope: Scope
    kind: Kind
    name: str
    limit: float
    per: Literal["second", "minute"]
    rate: float
    burst: float
    # The constant beginnings of what is told about it, in the RateLimit field and in OpenAI's lines.
    item: str = field(init=False, compare=False)
    line: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        limit = f"x-ratelimit-limit-{self.kind}: {int(self.burst)}\r\n"
        object.__setattr__(self, "item", f'"{self.name}";r=')
        object.__setattr__(self, "line", f"{limit}x-ratelimit-remaining-{self.kind}: ")

    @property
    def shape(self) -> Shape:
        """What a store elsewhere needs to know of it."""
        return self.name, self.rate, self.burst

    def wait(self, cost: float, level: float) -> float:
        """Seconds until a bucket of this shape that holds `level` can give `cost`; 0.0 is now."""
        missing = min(cost, self.burst) - level
        return missing / self.rate if missing > EPSILON else 0.0

    def policy(self) -> str:
        """This bucket as an item of the RateLimit-Policy field."""
        window = ceil(self.burst / self.rate)
        unit = ';qu="tokens"' if self.kind == "tokens" else ""
        return f'"{self.name}";q={int(self.burst)}{unit};w={window}'


@dataclass(frozen=True, slots=True)
class Plan:
    """All limiters of one subject, in the order they are asked."""

    scope: Scope
    name: str
    max_concurrent: int
    requests: tuple[Rate, ...]
    tokens: Rate | None
    policy: str
    rates: tuple[Rate, ...]  # all of them
    slots: str  # the concurrency's item of the RateLimit field, all but its number
    # What a store elsewhere needs to know: max_concurrent, request buckets, token buckets.
    shape: tuple[int, list[Shape], list[Shape]] = field(compare=False)

    @property
    def is_empty(self) -> bool:
        return not self.max_concurrent and not self.requests and self.tokens is None
