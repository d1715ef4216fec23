"""Limits shared by any number of processes and hosts, kept in Redis.

The same plans, verdicts and headers as `limiters.limits`; only the levels are
kept elsewhere. A request waits for one round trip, settling and releasing wait
for nothing. A slot is a lease that is renewed while its stream lives, so what
a killed process held is free again after one lease.
"""

import asyncio
from contextlib import suppress
from functools import partial
from itertools import count
from secrets import token_hex
from typing import Any, Literal

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy.errors import Overloaded
from proxy.limiters.account import Reading
from proxy.limiters.concurrency import Slots, expected_wait
from proxy.limiters.headers import grant_lines
from proxy.limiters.limits import Subject
from proxy.limiters.plans import Plans
from proxy.limiters.shapes import Plan
from proxy.limiters.spec import ScopeSpecs
from proxy.limiters.verdict import Refusal
from proxy.stores import limits_script as script
from proxy.stores.limits_pipe import Operation, Pipe, StoreDown
from proxy.stores.limits_script import Answer

# Seconds without an answer after which Redis counts as down: five hundred times what it
# takes on the same network, so that no hiccup lets everything through, and short beside
# most models' first token.
TIMEOUT = 0.25
# Seconds that a slot outlives its process. Renewed three times in that span.
LEASE = 30.0
RENEWALS_PER_LEASE = 3
# Leases renewed by one operation, and the pause before the next: Redis needs
# about half a millisecond for it, and other requests come in between.
RENEWED_AT_ONCE = 100
RENEWAL_PAUSE = 0.01
# What a client is told while there is no answer; probes come once per second by then.
RETRY_AFTER = "1"

OnFailure = Literal["fail_open", "fail_closed"]
Limiter = tuple[str, Plan]


def connect(**options: Any) -> Redis:
    """A client that repeats nothing by itself: a repeated call could charge twice."""
    return Redis(**options, retry=Retry(NoBackoff(), 0))


class RedisGrant:
    """A request that was let through, by Redis or for want of it; each call counts once."""

    __slots__ = ("_charged", "_is_settled", "_lease", "_limiters", "_owner", "_readings", "_started")

    def __init__(
        self,
        owner: "RedisLimits",
        limiters: list[Limiter],
        lease: str,
        now: float,
        *,
        charged: int,
        readings: list[Reading],
    ) -> None:
        self._readings = readings
        self._owner = owner
        self._limiters = limiters
        self._lease: str | None = lease
        self._started = now
        self._charged = charged
        self._is_settled = False

    @property
    def headers(self) -> bytes:
        """Header lines, each with its CRLF, ready to be sent."""
        return grant_lines(self._readings)

    def settle(self, tokens_used: int | None, now: float) -> None:
        """Charge what was really used, once; None leaves the estimate standing."""
        if tokens_used is None or self._is_settled:
            return
        self._is_settled = True
        self._owner.charge(self._limiters, tokens_used - self._charged)

    def release(self, now: float) -> None:
        """Give the slots back, once."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._owner.end(lease, now - self._started)


class RedisLimits:
    """Limits in Redis; owns two tasks between `start` and `close`, the client stays the caller's.

    `on_failure` says what happens while Redis gives no answer: every request is
    let through (`unchecked` counts them) or none is (`turned_away`).
    """

    def __init__(
        self,
        client: Redis,
        specs: ScopeSpecs,
        *,
        prefix: str = "llmproxy:",
        on_failure: OnFailure = "fail_open",
        timeout: float = TIMEOUT,
        lease: float = LEASE,
    ) -> None:
        self._script = client.register_script(script.SCRIPT)
        self._keys = [f"{{{prefix}limits}}:"]
        self._plans = Plans(specs)
        self._lease = lease
        self._process = token_hex(8)
        self._numbers = count()
        self._leases: dict[str, list[str]] = {}
        self._slots = Slots(0)
        self._pipe = Pipe(self._call, timeout)
        self._renewer: asyncio.Task[None] | None = None
        self.on_failure = on_failure
        self.unchecked = 0
        self.turned_away = 0

    def configure(self, specs: ScopeSpecs) -> None:
        """Follow a new configuration; open slots and what was used stay as they are."""
        self._plans = Plans(specs)

    async def start(self) -> None:
        """Connect; a Redis that is away is a warning here and an outage from then on."""
        await self._pipe.start()
        self._renewer = asyncio.get_running_loop().create_task(self._renew())

    async def close(self) -> None:
        """Stop renewing, and send what was given back."""
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)
            self._renewer = None
        await self._pipe.close()

    def counts_tokens(self, subject: Subject) -> bool:
        """Whether an estimate of this subject's tokens is worth making."""
        return self._plans.counts_tokens(subject)

    @property
    def is_up(self) -> bool:
        return self._pipe.is_up

    @property
    def outages(self) -> int:
        return self._pipe.outages

    @property
    def lost(self) -> int:
        """Messages that never reached Redis: charges, and slots beyond what is kept for its return."""
        return self._pipe.lost

    @property
    def running(self) -> int:
        """Requests of this process that run now, and not those of others."""
        return self._slots.open

    async def reserve(self, subject: Subject, tokens: int, now: float) -> RedisGrant | Refusal:
        """Let a request through everywhere or nowhere; `Overloaded` if nobody can say."""
        limiters = self._plans.of(subject)
        lease = f"{self._process}-{next(self._numbers)}"
        if not limiters:
            return RedisGrant(self, limiters, lease, now, charged=0, readings=[])
        wanted = [(name, plan.shape) for name, plan in limiters]
        undo = partial(self._undo, lease, limiters, tokens)
        try:
            admitted, states = await self._pipe.ask([script.RESERVE, lease, tokens, wanted], undo)
        except StoreDown:
            return self._without_answer(limiters, lease, now)
        readings = _readings(limiters, states)
        if admitted:
            return self._grant(limiters, lease, now, charged=tokens, readings=readings)
        waits = [expected_wait(self._slots.held, plan.max_concurrent) for _, plan in limiters]
        return Refusal(readings, tokens, waits)

    def _without_answer(self, limiters: list[Limiter], lease: str, now: float) -> RedisGrant:
        if self.on_failure == "fail_closed":
            self.turned_away += 1
            raise Overloaded("The limit store gives no answer.", headers={"Retry-After": RETRY_AFTER})
        self.unchecked += 1
        return self._grant(limiters, lease, now, charged=0, readings=[])

    def _grant(
        self, limiters: list[Limiter], lease: str, now: float, *, charged: int, readings: list[Reading]
    ) -> RedisGrant:
        self._slots.take()
        self._leases[lease] = _slot_names(limiters)
        return RedisGrant(self, limiters, lease, now, charged=charged, readings=readings)

    def end(self, lease: str, held: float) -> None:
        """A stream has ended: its slots are free, and no longer renewed."""
        names = self._leases.pop(lease, None)
        if names is None:
            return
        self._slots.release(held)
        if names:
            self._pipe.post([script.RELEASE, lease, names])

    def charge(self, limiters: list[Limiter], correction: int) -> None:
        """Take `correction` tokens more than were reserved; a negative one gives back."""
        shapes = [(name, plan.tokens.shape) for name, plan in limiters if plan.tokens]
        if correction and shapes:
            self._pipe.post([script.SETTLE, correction, shapes])

    def _undo(self, lease: str, limiters: list[Limiter], tokens: int, answer: Answer | None) -> None:
        """Nobody hears the answer: take back what it granted, or may have granted."""
        admitted = answer is None or answer[0]
        if admitted and (names := _slot_names(limiters)):
            self._pipe.post([script.RELEASE, lease, names])
        if answer is not None and admitted:
            self.charge(limiters, -tokens)

    async def _renew(self) -> None:
        """Keep the leases of running streams alive; make them anew when Redis has come back."""
        came_back = self._pipe.came_back
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease / RENEWALS_PER_LEASE):
                    await came_back.wait()
            came_back.clear()
            if self.is_up:
                await self._renew_all()

    async def _renew_all(self) -> None:
        renewable = [lease for lease, names in self._leases.items() if names]
        for start in range(0, len(renewable), RENEWED_AT_ONCE):
            some = renewable[start : start + RENEWED_AT_ONCE]
            alive = [(lease, self._leases[lease]) for lease in some if lease in self._leases]
            self._pipe.post([script.RENEW, alive])
            await asyncio.sleep(RENEWAL_PAUSE)

    async def _call(self, operations: list[Operation]) -> list[Answer]:
        packed = await self._script(keys=self._keys, args=script.arguments(operations, self._lease))
        return script.answers(packed)


def _slot_names(limiters: list[Limiter]) -> list[str]:
    return [name for name, plan in limiters if plan.max_concurrent]


def _readings(limiters: list[Limiter], states: list[list[float]]) -> list[Reading]:
    return [(plan, int(state[0]), state[1:]) for (_, plan), state in zip(limiters, states, strict=True)]
