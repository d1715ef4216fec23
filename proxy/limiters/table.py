"""The accounts of one scope, by subject, in bounded memory.

A full table forgets subjects that nobody would miss, oldest first: full
buckets and no open slot. One that was seen in use is sent to the back of the
queue (second chance), so that a request pays nothing for being remembered.
"""

from collections import OrderedDict
from ipaddress import AddressValueError, IPv6Address

from proxy.limiters.account import Account
from proxy.limiters.concurrency import Slots
from proxy.limiters.shapes import Scope
from proxy.limiters.spec import Limiting, LimitSpec

# About 600 bytes each, so 80 MB when full; above the 100,000 keys that one
# process is built for.
MAX_SUBJECTS = 131_072
# Old entries looked at per new subject, so that one request never pays for a sweep.
PROBES = 8
# An IPv6 customer is handed at least a /64, so its low 64 bits identify nobody.
IPV6_NETWORK_BITS = 64


class Table:
    """Accounts by name; `spec` is what a subject gets that brings no limits of its own."""

    __slots__ = ("_accounts", "_max_subjects", "scope", "spec", "total")

    def __init__(self, scope: Scope, spec: LimitSpec | None, max_subjects: int = MAX_SUBJECTS) -> None:
        self.scope: Scope = scope
        self.spec = spec
        self.total = Slots(0)
        self._max_subjects = max_subjects
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def account(self, name: str, own: Limiting | None, now: float) -> Account | None:
        """The subject's account, made or refitted where needed; None if nothing limits it."""
        base = self.spec
        account = self._accounts.get(name)
        if account is not None:
            if account.base is not base or account.own is not own:
                account.refit(base, own, now)
            return account
        if base is None and own is None:
            return None
        self._make_room(now)
        account = Account(self.scope, base, own, total=self.total, now=now)
        self._accounts[name] = account
        return account

    def _make_room(self, now: float) -> None:
        """Drop subjects that nothing would be lost with, or else the first that owes nothing.

        Open slots and debts are never forgotten, so a table may outgrow its
        bound by them: each belongs to an open connection or a served answer.
        """
        spare = None
        for _ in range(PROBES):
            if len(self._accounts) < self._max_subjects:
                return
            name, account = self._accounts.popitem(last=False)
            if account.is_idle(now):
                continue
            self._accounts[name] = account
            if spare is None and account.is_square(now):
                spare = name
        if spare is not None and len(self._accounts) >= self._max_subjects:
            del self._accounts[spare]


class AddressTable(Table):
    """Accounts by client address, IPv6 by network."""

    __slots__ = ()

    def account(self, name: str, own: Limiting | None, now: float) -> Account | None:
        return super().account(network(name) if ":" in name else name, own, now)


def network(address: str) -> str:
    """The /64 an IPv6 address is in; IPv4 in IPv6's clothes becomes IPv4 again."""
    try:
        parsed = IPv6Address(address)
    except AddressValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - IPV6_NETWORK_BITS):x}::/{IPV6_NETWORK_BITS}"
