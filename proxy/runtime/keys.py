"""Who may come in, as one generation of the configuration has it."""

import asyncio
import logging
import os

from proxy import clock
from proxy.access import Credential, CredentialHeaders, Refusal, digest, key_of, refusal
from proxy.config import Config
from proxy.errors import Overloaded
from proxy.stores.cached_keys import CachedStore
from proxy.stores.key_sources import KeyServices, answers, open_pipeline, read_sources
from proxy.stores.key_table import KeyTable
from proxy.stores.pipeline import Ask, Pipeline, StoreUnavailable
from proxy.wire.http1 import RequestHead

log = logging.getLogger(__name__)

# What clients are told to wait while a key store is down: it may be back any moment.
STORE_RETRY_SECONDS = 2


class Keys:
    """The pipeline of key sources, and what their answers mean for a request."""

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._answers = answers(config.auth.status_codes)
        self._headers = CredentialHeaders(config.auth.header_names)

    @classmethod
    async def build(cls, config: Config, services: KeyServices) -> "Keys":
        """Read what is in files, and be ready to ask the rest; raises ConfigError."""
        read = await asyncio.to_thread(read_sources, config, os.environ)
        for note in read.notes:
            log.warning("keys", extra={"note": note})
        return cls(config, await open_pipeline(read, services))

    def credential_nowait(self, head: RequestHead, ip: str) -> Credential | Ask | None:
        """Whose request it is, None where an unknown key is let in, ASK where `credential` has to be awaited.

        Raises what the client is told.
        """
        key, hashed = self._presented(head)
        if key is None:
            return self._admit(None, Refusal.MISSING)
        found = self._pipeline.find_nowait(hashed)
        return found if isinstance(found, Ask) else self._judged(found, ip)

    async def credential(self, head: RequestHead, ip: str) -> Credential | None:
        """As `credential_nowait`, asking those who have to be asked."""
        key, hashed = self._presented(head)
        return self._judged(await self._asked(hashed, key) if key is not None else None, ip)

    def _presented(self, head: RequestHead) -> tuple[bytes | None, bytes]:
        """The key that a head holds, and its digest."""
        presented: tuple[bytes | None, bytes] | None = head.memo.get(self)
        if presented is None:
            key = self._key(head)
            presented = head.memo[self] = key, digest(key) if key is not None else b""
        return presented

    def _key(self, head: RequestHead) -> bytes | None:
        """The key; heads that differ in one line's value have their lines in the same places."""
        memo, lines = head.memo if head.common is None else head.common.memo, head.lines
        places: list[int] | None = memo.get(self._headers)
        if places is None:
            places = memo[self._headers] = self._headers.places([line.lower for line in lines])
        for place in places:
            key = key_of(lines[place].lower, lines[place].value)
            if key is not None:
                return key
        return None

    def _judged(self, found: Credential | None, ip: str) -> Credential | None:
        if found is None:
            return self._admit(None, Refusal.NOT_FOUND)
        return self._admit(found, refusal(found, clock.wall(), ip))

    def debit(self, credential: Credential, *, requests: int = 0, tokens: int = 0) -> None:
        """Book what was used on the key's quotas; waits for nothing."""
        self._pipeline.debit(credential, requests=requests, tokens=tokens)

    def asked_sources(self) -> list[CachedStore]:
        """The sources outside this process, for whoever shows how they are."""
        return self._pipeline.cached()

    async def close(self) -> None:
        await self._pipeline.close()

    async def _asked(self, hashed: bytes, key: bytes) -> Credential | None:
        try:
            return await self._pipeline.find(hashed, key)
        except StoreUnavailable as error:
            log.debug("key store gives no answer", extra={"source": error.source, "reason": error.reason})
            headers = {"Retry-After": str(STORE_RETRY_SECONDS)}
            raise Overloaded("Keys cannot be checked at the moment.", headers=headers) from error

    def _admit(self, credential: Credential | None, reason: Refusal | None) -> Credential | None:
        error = self._answers.error(reason)
        if error is not None:
            raise error
        return credential


def key_tables(config: Config) -> list[KeyTable]:
    """The keys of the configuration and of its key files; raises ConfigError. Blocks."""
    return list(read_sources(config, os.environ).tables.values())
