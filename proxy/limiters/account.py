"""What one subject (a key, a user, an address, everybody) may still do.

Asking and taking are apart: a request is asked of all its accounts first and
taken from them only when all agree, so nothing has ever to be rolled back.
"""

from proxy.limiters.bucket import Bucket
from proxy.limiters.concurrency import Slots
from proxy.limiters.shapes import Plan, Scope
from proxy.limiters.spec import Limiting, plan_of

# What was left when a request was decided on: the plan, its open slots, and the
# levels of its buckets in the plan's order.
Reading = tuple[Plan, int, list[float]]


class Account:
    """The slots and buckets of one subject, as its plan wants them.

    `own` and `base` are what the plan was made from: one look at both tells
    whether it still holds. `total` counts the open slots of the whole scope.
    """

    __slots__ = ("base", "buckets", "own", "plan", "requests", "slots", "tokens", "total")

    def __init__(
        self,
        scope: Scope,
        base: Limiting | None,
        own: Limiting | None,
        *,
        total: Slots,
        now: float,
    ) -> None:
        self.base = base
        self.own = own
        self.total = total
        self.plan = shape = plan_of(scope, own, base)
        self.slots = Slots(shape.max_concurrent)
        self.requests = [Bucket(rate.rate, rate.burst, now) for rate in shape.requests]
        tokens = shape.tokens
        self.tokens = Bucket(tokens.rate, tokens.burst, now) if tokens else None
        self.buckets = self.requests if self.tokens is None else [*self.requests, self.tokens]

    def admits(self, tokens: float, now: float) -> bool:
        """Whether every limiter here lets this request through now; takes nothing."""
        slots = self.slots
        if slots.limit and slots.open >= slots.limit:
            return False
        for bucket in self.requests:
            if bucket.wait(1.0, now):
                return False
        return self.tokens is None or not self.tokens.wait(tokens, now)

    def take(self, tokens: float) -> Reading:
        """Take what `admits` just allowed."""
        slots = self.slots
        slots.open += 1
        self.total.open += 1
        for bucket in self.requests:
            bucket.level -= 1.0
        if self.tokens is not None:
            self.tokens.level -= tokens
        return self.plan, slots.open, [bucket.level for bucket in self.buckets]

    def release(self, held: float) -> None:
        """Give back the slot that `take` opened, `held` seconds later."""
        self.slots.release(held)
        self.total.open -= 1

    def reading(self, now: float) -> Reading:
        """The state as it is, with nothing taken."""
        buckets = self.buckets
        for bucket in buckets:
            bucket.wait(0.0, now)
        return self.plan, self.slots.open, [bucket.level for bucket in buckets]

    def is_idle(self, now: float) -> bool:
        """A new account would be the same: nothing is lost by dropping this one."""
        return not self.slots.open and all(bucket.is_full(now) for bucket in self.buckets)

    def is_square(self, now: float) -> bool:
        """No slot is open and nothing is owed; at most a part of a burst is used up."""
        return not self.slots.open and all(not bucket.wait(0.0, now) for bucket in self.buckets)

    def refit(self, base: Limiting | None, own: Limiting | None, now: float) -> None:
        """Follow a changed configuration; open slots, debts and what was used stay."""
        fresh = Account(self.plan.scope, base, own, total=self.total, now=now)
        self.base, self.own = base, own
        if fresh.plan == self.plan:
            return
        known = {rate.name: bucket for rate, bucket in zip(self.plan.rates, self.buckets, strict=True)}
        for rate, bucket in zip(fresh.plan.rates, fresh.buckets, strict=True):
            if rate.name in known:
                bucket.adopt(known[rate.name], now)
        self.plan = fresh.plan
        self.requests, self.tokens, self.buckets = fresh.requests, fresh.tokens, fresh.buckets
        self.slots.limit = fresh.slots.limit
