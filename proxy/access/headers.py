"""Where a request's key stands: the first of the configured headers that holds one."""

import re
from collections.abc import Iterable, Sequence

_BEARER = re.compile(rb"bearer +(.*)", re.IGNORECASE | re.DOTALL)
_BLANK = b" \t"


class CredentialHeaders:
    """The configured header names, worked out once.

    `names` (in lower case) belong to the credential: all of them are taken off
    before a request goes on, whichever of them held the key.
    """

    __slots__ = ("_ranks", "names")

    def __init__(self, header_names: Iterable[str | bytes]) -> None:
        lowered = [name.encode("ascii") if isinstance(name, str) else name for name in header_names]
        self._ranks = {name: rank for rank, name in reversed(list(enumerate(map(bytes.lower, lowered))))}
        self.names = frozenset(self._ranks)

    def find(self, raw_headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """The key, from header lines as (name in any case, value)."""
        headers = [(name.lower(), value) for name, value in raw_headers]
        found = (key_of(*headers[place]) for place in self.places([lower for lower, _ in headers]))
        return next((key for key in found if key), None)

    def places(self, lower_names: Sequence[bytes]) -> list[int]:
        """Where among these headers a key may stand, in the order in which they are asked."""
        ranks = self._ranks
        return sorted(
            (place for place, lower in enumerate(lower_names) if lower in ranks),
            key=lambda place: ranks[lower_names[place]],
        )


def key_in(raw_headers: Iterable[tuple[bytes, bytes]], header_names: Iterable[str | bytes]) -> bytes | None:
    """The same for a single look; whoever looks often keeps a CredentialHeaders."""
    return CredentialHeaders(header_names).find(raw_headers)


def key_of(lower_name: bytes, value: bytes) -> bytes | None:
    """The key in a header's value: Authorization needs its scheme, every other is raw."""
    value = value.strip(_BLANK)
    if lower_name != b"authorization":
        return value or None
    bearer = _BEARER.fullmatch(value)
    return bearer[1] if bearer else None
