"""What a request is told about the limits: let through or refused, and what is left.

The state is a snapshot of the moment of the decision, so that requests that
run side by side each see their own count. It is worked into header lines only
when an answer is sent.
"""

from collections.abc import Iterator
from typing import NamedTuple

from proxy.limiters.account import Reading
from proxy.limiters.headers import grant_lines, refusal_lines
from proxy.limiters.shapes import Kind, Plan, Rate, Scope


class Verdict:
    """A decision and the state of the limits right after it."""

    __slots__ = ("_lines", "_readings")

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._lines: bytes | None = None

    @property
    def headers(self) -> bytes:
        """Header lines, each with its CRLF, ready to be sent."""
        if self._lines is None:
            self._lines = self._render()
        return self._lines

    def fields(self) -> dict[str, str]:
        """The same as names and values, for answers that are built from a mapping."""
        lines = self.headers.decode("ascii").split("\r\n")
        return dict(line.split(": ", 1) for line in lines if line)

    def _render(self) -> bytes:
        return grant_lines(self._readings)


class Objection(NamedTuple):
    """One limiter that says no, and for how long; `rate` is None for concurrency."""

    kind: Kind
    plan: Plan
    rate: Rate | None
    wait: float


class Refusal(Verdict):
    """A request that has to wait; nothing was taken for it.

    Of several limiters that refuse, the one is told that keeps the request
    waiting longest, so that one retry is enough.
    """

    __slots__ = ("kind", "limiter", "message", "retry_after")

    def __init__(self, readings: list[Reading], tokens: float, slot_waits: list[float]) -> None:
        super().__init__(readings)
        objections = [
            objection
            for reading, slot_wait in zip(readings, slot_waits, strict=True)
            for objection in _objections(reading, tokens, slot_wait)
        ]
        longest = max(objections, key=lambda objection: objection.wait)
        self.limiter: Scope = longest.plan.scope
        self.kind: Kind = longest.kind
        self.retry_after = longest.wait
        self.message = f"{_limit(longest)} reached, retry in {longest.wait:.1f} s"

    def _render(self) -> bytes:
        return refusal_lines(self._readings, self.retry_after)


def _objections(reading: Reading, tokens: float, slot_wait: float) -> Iterator[Objection]:
    """Every limiter of one account that refuses, in the order they are asked."""
    plan, open_slots, levels = reading
    if plan.max_concurrent and open_slots >= plan.max_concurrent:
        yield Objection("concurrent", plan, None, slot_wait)
    for rate, level in zip(plan.requests, levels, strict=False):
        if wait := rate.wait(1.0, level):
            yield Objection("requests", plan, rate, wait)
    if plan.tokens is not None and (wait := plan.tokens.wait(tokens, levels[-1])):
        yield Objection("tokens", plan, plan.tokens, wait)


def _limit(objection: Objection) -> str:
    rate, plan = objection.rate, objection.plan
    if rate is None:
        return f"{plan.scope} limit of {plan.max_concurrent} concurrent requests"
    return f"{plan.scope} limit of {rate.limit:g} {rate.kind} per {rate.per}"
