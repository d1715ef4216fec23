"""The sources of keys, asked in their order.

Most requests are answered without leaving the event loop's turn: files are in
memory, and slow stores are remembered. Only what nobody remembers is awaited.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

from proxy.access import Credential
from proxy.stores.cached_keys import ASK, Ask, CachedStore
from proxy.stores.key_store import StoreUnavailable

__all__ = ["ASK", "Ask", "Pipeline", "Source", "StoreUnavailable"]

Mode = Literal["first_match", "all"]


class Source(Protocol):
    """A place where keys are looked up; a slow one says ASK where it would have to be awaited."""

    name: str

    def find_nowait(self, digest: bytes) -> Credential | Ask | None: ...

    async def find(self, digest: bytes, key: bytes) -> Credential | None: ...

    def debit(self, credential: Credential, amount: int) -> None: ...

    async def close(self) -> None: ...


class Pipeline:
    """All sources as one."""

    def __init__(
        self, sources: Sequence[Source], *, mode: Mode = "first_match", timeout: float = 10.0
    ) -> None:
        self.sources = tuple(sources)
        self._by_name = {source.name: source for source in sources}
        self._wants_all = mode == "all"
        self._timeout = timeout

    def find_nowait(self, digest: bytes) -> Credential | Ask | None:
        """Who this is, None if nobody knows the key, or ASK where `find` has to be awaited."""
        known: list[Credential] = []
        for source in self.sources:
            found = source.find_nowait(digest)
            if found is ASK:
                return ASK
            if found is not None:
                if not self._wants_all:
                    return found
                known.append(found)
        return _together(known)

    async def find(self, digest: bytes, key: bytes) -> Credential | None:
        """As `find_nowait`, asking those who have to be asked; StoreUnavailable if nobody can say.

        A source that is down may be stood in for by the next one that knows the
        key, unless all have to agree.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._find(digest, key)
        except TimeoutError as error:
            raise StoreUnavailable("pipeline", "time-out") from error

    async def _find(self, digest: bytes, key: bytes) -> Credential | None:
        known: list[Credential] = []
        failure: StoreUnavailable | None = None
        for source in self.sources:
            try:
                found = await source.find(digest, key)
            except StoreUnavailable as error:
                if self._wants_all:
                    raise
                failure = failure or error
                continue
            if found is not None:
                if not self._wants_all:
                    return found
                known.append(found)
        if failure is not None:
            raise failure
        return _together(known)

    def debit(self, credential: Credential, *, requests: int = 0, tokens: int = 0) -> None:
        """Count what was used, wherever this key has a quota of that unit; waits for nothing."""
        for each in (credential, *credential.also):
            if each.quota is None:
                continue
            amount = tokens if each.quota.unit == "tokens" else requests
            source = self._by_name.get(each.source)
            if amount > 0 and source is not None:
                source.debit(each, amount)

    def cached(self) -> list[CachedStore]:
        """The sources that have to be asked, for whoever shows how they are."""
        return [source for source in self.sources if isinstance(source, CachedStore)]

    async def close(self) -> None:
        """Send what was debited and let go of connections."""
        await asyncio.gather(*(source.close() for source in self.sources))


def _together(known: list[Credential]) -> Credential | None:
    """The first who knows the key says who it is; the others have a say in what it may do."""
    if not known:
        return None
    first, *others = known
    return replace(first, also=tuple(others)) if others else first
