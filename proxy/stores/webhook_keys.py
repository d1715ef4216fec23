"""Keys that a service knows: it is asked by HTTP, and only a plain yes lets anybody in.

A 2xx with the documented body decides; 401 and 404 say that there is no such
key, 403 that it may not be used. Everything else is a service that gives no answer.
"""

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from proxy.access import Credential, Quota, key_id
from proxy.clock import Clock
from proxy.stores.answer import BadAnswer, credential_from
from proxy.stores.key_store import LookupFailed, StoreUnavailable

# An entry with everything that may be said of a key is under 2 KiB.
MAX_ANSWER_BYTES = 64 * 1024

# A proxy in front of the service says so where the service itself is away.
_AWAY = frozenset((502, 503, 504))
_UNKNOWN = frozenset((401, 404))


class WebhookKeys:
    """Asks by POST with the key and the time; redirects would carry keys elsewhere and are not followed."""

    def __init__(
        self,
        name: str,
        session: aiohttp.ClientSession,
        url: str,
        *,
        wall: Clock,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._session = session
        self._url = url
        self._wall = wall
        self._method = method
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }

    async def find(self, digest: bytes, key: str) -> Credential | None:
        body = orjson.dumps({"api_key": key, "timestamp": int(self._wall())})
        try:
            async with self._session.request(
                self._method, self._url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                return self._judged(response.status, await _start(response), digest)
        except aiohttp.ClientError as error:
            raise StoreUnavailable(self.name, type(error).__name__) from error

    async def debit(self, credential: Credential, amount: int, now: float, *, entry: str) -> Quota | None:
        """The service keeps its own books; it learns of usage from the usage reports."""
        return None

    async def close(self) -> None:
        await self._session.close()

    def _judged(self, status: int, body: bytes, digest: bytes) -> Credential | None:
        if status in _UNKNOWN:
            return None
        if status == 403:
            return Credential(key_id(digest), digest, status="disabled", source=self.name)
        if status in _AWAY:
            raise StoreUnavailable(self.name, f"status {status}")
        if not 200 <= status < 300:
            raise LookupFailed(self.name, f"status {status}")
        try:
            return credential_from(_object(body), digest, source=self.name)
        except BadAnswer as error:
            raise LookupFailed(self.name, str(error)) from None


async def _start(response: aiohttp.ClientResponse) -> bytes:
    """The body, and one byte more than is allowed of one that is too long."""
    body = b""
    while len(body) <= MAX_ANSWER_BYTES:
        piece = await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))
        if not piece:
            break
        body += piece
    return body


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_ANSWER_BYTES:
        raise BadAnswer("the answer is too long")
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadAnswer("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise BadAnswer("the answer is not a JSON object")
    return found
