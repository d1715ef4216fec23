"""What a session's prompts began with, so that one which begins otherwise is noticed.

A prefix cache finds what is the same from the first byte on. So a prompt is cut into
blocks, and each block's digest covers all that stands before it: two prompts are the
same up to the first digest that differs. The digests are keyed and eight bytes long;
of the prompts themselves nothing is kept.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

# Some 64 tokens; vLLM's own blocks have 16. A divergence is told to this precision.
BLOCK_BYTES = 256
_DIGEST_BYTES = 8

# Of a longer prompt the first mebibyte or so is followed: 32 KiB of digests.
MAX_BLOCKS = 4096
# An agent keeps a few conversations in one session: its main one, sub-agents, summaries.
MAX_PROMPTS = 4
# 8 MiB of digests in all, for 500 sessions with 100 KiB of prompt in five places; the least recently
# used go first.
MAX_DIGESTS = 1024 * 1024
MAX_SESSIONS = 16 * 1024

# After so many in a row the session's cache is of no use, and somebody should know.
ALARMING = 3


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a prompt stops being the same as the session's most similar one before."""

    at: int  # bytes from the prompt's beginning
    part: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found out about a prompt; `divergence` is None where nothing was lost."""

    is_first: bool
    divergence: Divergence | None
    cached_share: float | None  # of the session's request before
    is_alarming: bool = False


@dataclass(slots=True)
class _Session:
    prompts: list[bytes] = field(default_factory=list)  # digests, the most recent last
    cached_share: float | None = None
    early: int = 0  # divergences in a row that lost the whole conversation

    @property
    def digests(self) -> int:
        return sum(map(len, self.prompts)) // _DIGEST_BYTES


Piece = tuple[str, bytes]
"""A part's name, and bytes of it: a tool, a message."""


class PrefixTable:
    """Bounded; `compare` remembers what it compared."""

    def __init__(
        self, secret: bytes, *, max_sessions: int = MAX_SESSIONS, max_digests: int = MAX_DIGESTS
    ) -> None:
        """`secret` keys the digests."""
        self._max_sessions = max_sessions
        self._max_digests = max_digests
        self._secret = secret[: blake2b.MAX_KEY_SIZE]
        self._sessions: OrderedDict[Hashable, _Session] = OrderedDict()
        self.digests = 0

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def compare(self, key: Hashable, pieces: Iterable[Piece], *, lasting: str) -> Comparison:
        """Compare a prompt with those of its session; to differ before the part `lasting` is alarming."""
        blocks = list(islice(_blocks(pieces), MAX_BLOCKS))
        digests = self._chained(block for _, block in blocks)
        session = self._sessions.pop(key, None) or _Session()
        is_first = not session.prompts
        same, nearest = _nearest(session.prompts, digests)
        divergence = None
        if not is_first and same < min(len(digests), len(session.prompts[nearest])) // _DIGEST_BYTES:
            divergence = Divergence(sum(len(block) for _, block in blocks[:same]), blocks[same][0])
        is_early = divergence is not None and divergence.part != lasting
        session.early = session.early + 1 if is_early else 0
        self._remember(key, session, digests, in_place_of=None if divergence or is_first else nearest)
        return Comparison(is_first, divergence, session.cached_share, session.early == ALARMING)

    def used(self, key: Hashable, prompt_tokens: int, cached_tokens: int) -> None:
        """What the upstream counted for the session's last request."""
        session = self._sessions.get(key)
        if session is not None and prompt_tokens > 0:
            session.cached_share = min(cached_tokens / prompt_tokens, 1.0)

    def _chained(self, blocks: Iterable[bytes]) -> bytes:
        running = blake2b(digest_size=_DIGEST_BYTES, key=self._secret)
        digests: list[bytes] = []
        for block in blocks:
            running.update(block)
            digests.append(running.digest())
        return b"".join(digests)

    def _remember(self, key: Hashable, session: _Session, digests: bytes, *, in_place_of: int | None) -> None:
        self.digests -= session.digests
        if in_place_of is not None:
            kept = session.prompts.pop(in_place_of)
            digests = max(kept, digests, key=len)  # a shorter one says no more than was known
        session.prompts = [*session.prompts, digests][-MAX_PROMPTS:]
        self._sessions[key] = session
        self.digests += session.digests
        while self.digests > self._max_digests or len(self._sessions) > self._max_sessions:
            _, oldest = self._sessions.popitem(last=False)
            self.digests -= oldest.digests


def _blocks(pieces: Iterable[Piece]) -> "Iterable[Piece]":
    """Pieces cut to blocks; each piece begins one, so that a prompt which goes on is not one that differs."""
    for part, text in pieces:
        for at in range(0, len(text), BLOCK_BYTES):
            yield part, text[at : at + BLOCK_BYTES]


def _nearest(prompts: list[bytes], digests: bytes) -> tuple[int, int]:
    """How many blocks the most similar prompt has in common, and which it is."""
    shared = [(_shared(prompt, digests), place) for place, prompt in enumerate(prompts)]
    return max(shared, default=(0, 0))


def _shared(one: bytes, other: bytes) -> int:
    """Digests that two chains share: all in front of the first that differs."""
    low, high = 0, min(len(one), len(other)) // _DIGEST_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        end = middle * _DIGEST_BYTES
        if one[end - _DIGEST_BYTES : end] == other[end - _DIGEST_BYTES : end]:
            low = middle
        else:
            high = middle - 1
    return low
