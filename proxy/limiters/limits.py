"""All limits of a process: global, per key, per user, per model, per address.

`reserve` is all or nothing and never waits. What it grants is settled when the
true cost is known and released when the stream has ended, each exactly once
however often it is asked for.
"""

from proxy.limiters.account import Account
from proxy.limiters.shapes import Scope
from proxy.limiters.spec import SCOPES, Limiting, ScopeSpecs
from proxy.limiters.table import MAX_SUBJECTS, AddressTable, Table
from proxy.limiters.verdict import Refusal, Verdict

__all__ = ["EVERYBODY", "Grant", "Limits", "Refusal", "Subject"]

# The one account of the global scope.
EVERYBODY = "everybody"


class Subject:
    """Whom a request counts for; `limits` are the key's own, over those of every key.

    `names` are those of SCOPES, in that order.
    """

    __slots__ = ("limits", "names")

    def __init__(
        self,
        key_id: str | None = None,
        user_id: str | None = None,
        model: str | None = None,
        ip: str | None = None,
        limits: Limiting | None = None,
    ) -> None:
        self.names: tuple[str | None, ...] = EVERYBODY, key_id, user_id, model, ip
        self.limits = limits


class Grant(Verdict):
    """A request that was let through: its slots, and what it was charged."""

    __slots__ = ("_accounts", "_is_open", "_is_settled", "_started", "_tokens")

    def __init__(self, accounts: list[Account], tokens: int, now: float) -> None:
        readings = []
        for account in accounts:
            readings.append(account.take(tokens))
        super().__init__(readings)
        self._accounts = accounts
        self._tokens = tokens
        self._started = now
        self._is_open = True
        self._is_settled = False

    def settle(self, tokens_used: int | None, now: float) -> None:
        """Charge what was really used, once; None leaves the estimate standing."""
        if tokens_used is None or self._is_settled:
            return
        self._is_settled = True
        correction = tokens_used - self._tokens
        for account in self._accounts:
            if account.tokens is not None:
                account.tokens.settle(correction, now)

    def release(self, now: float) -> None:
        """Give the slots back, once."""
        if not self._is_open:
            return
        self._is_open = False
        held = now - self._started
        for account in self._accounts:
            account.release(held)


class Limits:
    """Every limiter of one process; `max_subjects` bounds each of its tables."""

    def __init__(self, specs: ScopeSpecs, max_subjects: int = MAX_SUBJECTS) -> None:
        self._tables = [
            AddressTable(scope, None, max_subjects) if scope == "per_ip" else Table(scope, None, max_subjects)
            for scope in SCOPES
        ]
        self._keys = self._tables[SCOPES.index("per_key")]
        self.configure(specs)

    def configure(self, specs: ScopeSpecs) -> None:
        """Follow a new configuration; open slots and what was used stay as they are."""
        for table, spec in zip(self._tables, specs.in_order(), strict=True):
            table.spec = spec
        # Keys are always asked for: they may bring limits of their own.
        tables = enumerate(self._tables)
        self._scopes = [(at, table) for at, table in tables if table.spec or table is self._keys]
        self._has_token_limits = specs.count_tokens()

    def reserve(self, subject: Subject, tokens: int, now: float) -> Grant | Refusal:
        """Let a request through everywhere or nowhere; `tokens` is what it may cost."""
        accounts = self._accounts(subject, now)
        for account in accounts:
            if not account.admits(tokens, now):
                readings = [each.reading(now) for each in accounts]
                return Refusal(readings, tokens, [each.slots.wait() for each in accounts])
        return Grant(accounts, tokens, now)

    def counts_tokens(self, subject: Subject) -> bool:
        """Whether an estimate of this subject's tokens is worth making."""
        own = subject.limits
        return self._has_token_limits or (own is not None and bool(own.tokens_per_minute))

    def open_slots(self) -> dict[Scope, int]:
        """Requests running now, as each scope counts them."""
        return {table.scope: table.total.open for table in self._tables}

    def table_sizes(self) -> dict[Scope, int]:
        """Subjects remembered in each scope."""
        return {table.scope: len(table) for table in self._tables}

    def _accounts(self, subject: Subject, now: float) -> list[Account]:
        accounts = []
        names, own = subject.names, subject.limits
        for at, table in self._scopes:
            name = names[at]
            if name is not None:
                account = table.account(name, own if table is self._keys else None, now)
                if account is not None:
                    accounts.append(account)
        return accounts
