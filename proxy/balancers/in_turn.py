"""Which candidates a balancer looks at for one request, and in which order.

Another one comes first each time, so that ties go round. Of a large pool only a part
is looked at, another part each time: the best of two drawn ones is nearly as even as
the best of all (Mitzenmacher, 2001), the best of so many cannot be told from it, and
a pool of thousands costs a request no more than one of this size.
"""

from collections.abc import Sequence

from proxy.balancers.base import C

MAX_LOOKS = 64


def in_turn(candidates: Sequence[C], turn: int) -> Sequence[C]:
    """The candidates from the turn's on, around the end, each at most once."""
    count = len(candidates)
    at = turn % count
    looks = min(count, MAX_LOOKS)
    if at + looks <= count:
        return candidates[at : at + looks]
    return (*candidates[at:], *candidates[: at + looks - count])
