"""Keys in Redis, each a hash or a JSON text at a name made from the key or its digest."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from random import random
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from proxy.access import Credential, Quota, next_period_start, period_start
from proxy.stores.key_store import LookupFailed, StoreUnavailable
from proxy.stores.record import BadRecord, credential_of, moment
from proxy.stores.redis_scripts import ADD_TO_HASH, REPLACE_TEXT
from proxy.stores.times import rfc3339

# Tries to change a JSON text that others change at the same time.
TRIES = 32
# Seconds by which they give way to each other, more with every try: a change takes half a millisecond.
STEP_ASIDE = 0.001


class RedisKeys:
    """Reads records, and adds what was used to their `used_quota`."""

    def __init__(self, name: str, client: Redis, key_pattern: str, *, prefix: str = "llmproxy:") -> None:
        self.name = name
        self._client = client
        self._pattern = key_pattern
        self._prefix = prefix
        self._add_to_hash = client.register_script(ADD_TO_HASH)
        self._replace_text = client.register_script(REPLACE_TEXT)

    async def find(self, digest: bytes, key: str) -> Credential | None:
        handle = self._pattern.replace("{sha256}", digest.hex()).replace("{api_key}", key)
        try:
            record = await self._read(handle)
            return None if record is None else credential_of(record, digest, source=self.name, handle=handle)
        except BadRecord as error:
            raise LookupFailed(self.name, str(error)) from None
        except RedisError as error:
            raise StoreUnavailable(self.name, type(error).__name__) from None

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        if credential.quota is None:
            return None
        try:
            return await self._add(
                credential, credential.quota, amount, now, marker=f"{self._prefix}debit:{entry}"
            )
        except BadRecord as error:
            raise LookupFailed(self.name, str(error)) from None
        except ResponseError:
            raise LookupFailed(self.name, "used_quota cannot be added to") from None
        except RedisError as error:
            raise StoreUnavailable(self.name, type(error).__name__) from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _read(self, handle: str) -> Mapping[str, Any] | None:
        """A hash or a text; which of them is known once both were asked for."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(handle)
        pipeline.get(handle)
        fields, text = await pipeline.execute(raise_on_error=False)
        for answer in (fields, text):
            if isinstance(answer, Exception) and not _is_other_type(answer):
                raise answer
        if isinstance(fields, Exception) and isinstance(text, Exception):
            raise BadRecord("a record that is neither a hash nor a text")
        if isinstance(fields, dict) and fields:
            return {name.decode("utf-8", "replace"): value for name, value in fields.items()}
        return _object(text) if isinstance(text, bytes) else None

    async def _add(
        self, credential: Credential, quota: Quota, amount: int, now: float, *, marker: str
    ) -> Quota | None:
        """In one step for a hash; a text says that it is one."""
        starts = period_start(quota.period, now), next_period_start(quota.period, now)
        bounds = [text for at in starts for text in (("", "") if at is None else (str(int(at)), rfc3339(at)))]
        kind, *rest = await self._add_to_hash(keys=[credential.handle, marker], args=[amount, *bounds])
        if kind == b"gone":
            return None
        if kind == b"done":
            used, since = rest
            return replace(quota, used=int(used), last_reset_at=_moment(since))
        return await self._add_to_text(credential, rest[0], amount, now, marker=marker)

    async def _add_to_text(
        self, credential: Credential, text: bytes, amount: int, now: float, *, marker: str
    ) -> Quota | None:
        """Put a new text in place of the one that was read, until nobody else was quicker."""
        for attempt in range(TRIES):
            record = _object(text)
            current = credential_of(record, credential.digest, source=self.name).quota
            if current is None:
                return None
            quota = current.debited(amount, now)
            keys = [credential.handle, marker]
            kind, *rest = await self._replace_text(keys=keys, args=[text, _spent(record, quota)])
            if kind == b"done":
                return quota
            if kind == b"gone":
                return None
            text = rest[0]
            await asyncio.sleep(random() * attempt * STEP_ASIDE)
        raise StoreUnavailable(self.name, "the record changes too often")


def _spent(record: dict[str, Any], quota: Quota) -> bytes:
    """The record with a new figure, its times in the form they had."""
    since = record.get("last_reset_at")
    if quota.last_reset_at is not None and quota.last_reset_at != moment(since or 0):
        since = quota.last_reset_at if isinstance(since, int | float) else rfc3339(quota.last_reset_at)
        record = {**record, "last_reset_at": since}
    return orjson.dumps({**record, "used_quota": quota.used})


def _is_other_type(answer: Exception) -> bool:
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadRecord("the JSON text") from None
    if not isinstance(found, dict):
        raise BadRecord("the JSON text")
    return found


def _moment(text: bytes) -> float | None:
    return moment(text.decode()) if text else None
