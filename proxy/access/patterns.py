"""Names with `*` in them, matched in one pass however long the name is.

A regular expression with many `.*` takes time with a power of the length, and
the name comes from a client.
"""

from collections.abc import Iterable

WILDCARD = "*"


class Patterns:
    """Matches a name that any of the patterns describes; no patterns match everything."""

    __slots__ = ("_globs", "_matches_all", "_names")

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._names = frozenset(pattern for pattern in patterns if WILDCARD not in pattern)
        self._globs = tuple(pattern.split(WILDCARD) for pattern in patterns if WILDCARD in pattern)
        self._matches_all = not patterns or WILDCARD in patterns

    def allows(self, name: str) -> bool:
        if self._matches_all or name in self._names:
            return True
        return any(_matches(pieces, name) for pieces in self._globs)


def _matches(pieces: list[str], name: str) -> bool:
    """First piece in front, last at the end, the others in order between them, each as early as it fits."""
    first, *between, last = pieces
    end = len(name) - len(last)
    if end < len(first) or not name.startswith(first) or not name.endswith(last):
        return False
    position = len(first)
    for piece in between:
        found = name.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True
