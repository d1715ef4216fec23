"""Where a request's key stands: the first of the configured headers that holds one."""

import re
from collections.abc import Iterable

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
        best, found = len(self._ranks) + 1, None
        for name, value in raw_headers:
            lower = name.lower()
            rank = self._ranks.get(lower)
            if rank is not None and rank < best and (key := _key_in(lower, value)):
                if rank == 0:
                    return key
                best, found = rank, key
        return found


def key_in(raw_headers: Iterable[tuple[bytes, bytes]], header_names: Iterable[str | bytes]) -> bytes | None:
    """The same for a single look; whoever looks often keeps a CredentialHeaders."""
    return CredentialHeaders(header_names).find(raw_headers)


def _key_in(lower_name: bytes, value: bytes) -> bytes | None:
    """Authorization needs its scheme, every other header is raw."""
    value = value.strip(_BLANK)
    if lower_name != b"authorization":
        return value or None
    bearer = _BEARER.fullmatch(value)
    return bearer[1] if bearer else None
