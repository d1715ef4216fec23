"""Values that the floors below know: a new balancer or format is a choice at once."""

from collections.abc import Mapping, Sequence

from proxy import balancers
from proxy.adapters import reasoning_families
from proxy.adapters.tool_calls import formats

CHOICES: Mapping[str, Sequence[str]] = {
    "load_balance": tuple(balancers.KINDS),
    "tool_format": tuple(formats.KINDS),
    "reasoning_format": tuple(reasoning_families.KINDS),
}
