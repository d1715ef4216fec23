"""What adapters have learned from requests.

It outlives a reload, because models, sessions and the caches of the servers do.
"""

from collections.abc import Collection, Hashable

from proxy.adapters.clamp_max_tokens import TokenRate
from proxy.adapters.prefix_table import PrefixTable


class AdapterMemory:
    """One for all models; each model's rate goes by a name that changes with its vocabulary."""

    def __init__(self, secret: bytes) -> None:
        self.prefixes = PrefixTable(secret)
        self._rates: dict[Hashable, TokenRate] = {}

    def rate(self, name: Hashable) -> TokenRate:
        """What is known of this model's prompts, or a clean sheet that will be."""
        return self._rates.setdefault(name, TokenRate())

    def forget_others(self, names: Collection[Hashable]) -> None:
        """Keep the rates of these only; requests that still run learn for nobody."""
        for name in self._rates.keys() - set(names):
            del self._rates[name]
