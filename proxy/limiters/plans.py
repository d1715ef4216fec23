"""Which plans a request has to pass, for limits whose levels are kept elsewhere.

The in-memory limits keep a plan in every account; a store that several
processes share is told the plan with every request, under the account's name.
"""

from proxy.limiters.limits import Subject
from proxy.limiters.shapes import Plan, Scope
from proxy.limiters.spec import SCOPES, ScopeSpecs, plan, plan_of
from proxy.limiters.table import network


class Plans:
    """The plans of one configuration."""

    def __init__(self, specs: ScopeSpecs) -> None:
        self._specs = specs
        self._plans = {
            scope: made
            for scope, spec in zip(SCOPES, specs.in_order(), strict=True)
            if spec is not None and not (made := plan(scope, spec)).is_empty
        }
        self._has_token_limits = specs.count_tokens()

    def counts_tokens(self, subject: Subject) -> bool:
        """Whether an estimate of this subject's tokens is worth making."""
        own = subject.limits
        return self._has_token_limits or (own is not None and bool(own.tokens_per_minute))

    def of(self, subject: Subject) -> list[tuple[str, Plan]]:
        """Account names and plans, in the order they are asked."""
        own = subject.limits
        wanted = []
        for scope, name in zip(SCOPES, subject.names, strict=True):
            is_own = own is not None and scope == "per_key"
            made = plan_of(scope, own, self._specs.per_key) if is_own else self._plans.get(scope)
            if name is not None and made is not None and not made.is_empty:
                wanted.append((_account_name(scope, name), made))
        return wanted


def _account_name(scope: Scope, name: str) -> str:
    return f"{scope}:{network(name) if scope == 'per_ip' and ':' in name else name}"
