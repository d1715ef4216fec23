"""The state of the limits as header lines, in the two dialects clients read.

OpenAI's `x-ratelimit-*` knows one requests and one tokens limit, so the
tightest of each is told, resets in Go's duration syntax. The IETF fields
(draft-ietf-httpapi-ratelimit-headers) name every policy. On a refusal no reset
lies after Retry-After, as the draft asks.
"""

from collections.abc import Sequence
from math import ceil

from proxy.limiters.account import Reading
from proxy.limiters.bucket import EPSILON
from proxy.limiters.shapes import Rate

# What a sum of doubles may be off, in milliseconds or seconds; without it a full
# minute would be told as 61 s.
ROUNDING = 1e-3


def grant_lines(readings: Sequence[Reading]) -> bytes:
    """Header lines for an answer that was let through; empty where nothing is limited."""
    return _state_lines(readings).encode("ascii")


def refusal_lines(readings: Sequence[Reading], wait: float) -> bytes:
    """The same for a refusal, with when to come back: whole seconds, and exactly."""
    retry_after = max(1, ceil(wait))
    lines = _state_lines(readings, retry_after)
    lines += f"retry-after: {retry_after}\r\nretry-after-ms: {max(1, ceil(wait * 1000))}\r\n"
    return lines.encode("ascii")


def go_duration(seconds: float) -> str:
    """A span as Go's time.ParseDuration reads it: 12ms, 1.5s, 6m0s, 1h0m0s."""
    milliseconds = _ceil(seconds * 1000.0 - ROUNDING)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    if not minutes:
        return f"{rest / 1000:g}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest / 1000:g}s" if hours else f"{minutes}m{rest / 1000:g}s"


def _state_lines(readings: Sequence[Reading], latest_reset: int | None = None) -> str:
    items = policies = ""
    requests: Rate | None = None
    tokens: Rate | None = None
    requests_level = tokens_level = 0.0
    for plan, open_slots, levels in readings:
        if plan.max_concurrent:
            items += f"{plan.slots}{_left(plan.max_concurrent - open_slots)}, "
        for at, rate in enumerate(plan.rates):
            level = levels[at]
            reset = _ceil((rate.burst - level) / rate.rate - ROUNDING)
            if latest_reset is not None and reset > latest_reset:
                reset = latest_reset
            items += f"{rate.item}{_left(level)};t={reset}, "
            if rate is plan.tokens:
                if tokens is None or level < tokens_level:
                    tokens, tokens_level = rate, level
            elif requests is None or level < requests_level:
                requests, requests_level = rate, level
        if plan.policy:
            policies += f"{plan.policy}, "
    if not items:
        return ""
    lines = ""
    if requests is not None:
        lines += _openai_lines(requests, requests_level)
    if tokens is not None:
        lines += _openai_lines(tokens, tokens_level)
    return f"{lines}ratelimit-policy: {policies[:-2]}\r\nratelimit: {items[:-2]}\r\n"


def _openai_lines(rate: Rate, level: float) -> str:
    reset = go_duration((rate.burst - level) / rate.rate)
    return f"{rate.line}{_left(level)}\r\nx-ratelimit-reset-{rate.kind}: {reset}\r\n"


def _left(level: float) -> int:
    """Whole units, forgiving what buckets forgive."""
    return int(level + EPSILON) if level > 0.0 else 0


def _ceil(number: float) -> int:
    """math.ceil, but compiled: it is asked six times for each request."""
    whole = int(number)
    return whole + 1 if whole < number else whole
