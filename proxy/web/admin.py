"""The administration of keys by HTTP: POST with a JSON object, an envelope back.

    {"success": true, "message": "key created", "data": {…}}
    {"success": false, "message": "there is no such key", "error": "not_found"}

Paths and fields are those of the Go LLMProxy. Nothing but a good token from a
good address learns whether a key exists.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from hmac import compare_digest
from typing import Any

import orjson
from aiohttp import web

from proxy.access import Networks, address, digest, is_within, key_id, key_in
from proxy.clock import Clock
from proxy.errors import BodyTooLarge, ProxyError
from proxy.stores.key_book import KeyBook
from proxy.stores.key_calls import CALLS, READS, Json, KeyCalls
from proxy.stores.key_database import KeyDatabase
from proxy.stores.key_editor import KeyExists, NoSuchKey
from proxy.stores.key_fields import BadFields
from proxy.stores.key_store import StoreUnavailable
from proxy.stores.new_key import Random

PREFIX = "/admin/keys/"

# A full synchronisation of 50,000 keys with everything that may be said of them.
MAX_BODY_BYTES = 32 * 1024 * 1024
# How long a caller is told to wait while the database cannot be used.
RETRY_AFTER = "5"

_TOKEN_HEADERS = (b"X-Admin-Token", b"Authorization")
_DONE = {
    "create": "key created",
    "update": "key updated",
    "delete": "key deleted",
    "rotate": "key rotated",
    "get": "key found",
    "list": "keys listed",
    "sync": "keys synchronised",
    "audit": "changes listed",
}

ReadBody = Callable[[web.Request, int], Awaitable[bytes]]
ClientIp = Callable[[web.Request], str]


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body, on a listener of aiohttp's own."""
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise BodyTooLarge(f"The body is larger than {limit} bytes.")
    return bytes(body)


class Denied(Exception):
    """A call that is not carried out: status, code and a sentence."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


class AdminPages:
    """The handlers; `read_body` and `client_ip` know the listener that they are mounted on."""

    def __init__(
        self,
        database: KeyDatabase,
        token_digest: bytes,
        allowed: Networks,
        *,
        read_only: bool,
        wall: Clock,
        random: Random,
        read_body: ReadBody = read_body,
        client_ip: ClientIp = lambda request: request.remote or "",
    ) -> None:
        self._database = database
        self._token_digest = token_digest
        self._who = f"admin:{key_id(token_digest)}"
        self._allowed = allowed
        self._read_only = read_only
        self._wall = wall
        self._random = random
        self._read_body = read_body
        self._client_ip = client_ip

    def routes(self) -> list[web.RouteDef]:
        """Every call takes every method: those that are not POST get an envelope too."""
        return [web.route("*", PREFIX + action, partial(self._answer, action)) for action in CALLS]

    async def _answer(self, action: str, request: web.Request) -> web.Response:
        try:
            self._admit(action, request)
            call = partial(self._carry_out, action, await self._read_body(request, MAX_BODY_BYTES))
            data = await (self._database.read(call) if action in READS else self._database.change(call))
        except Denied as denied:
            return _refused(denied.status, denied.code, denied.message, denied.headers)
        except BadFields as error:
            return _refused(400, "invalid_request", str(error))
        except NoSuchKey:
            return _refused(404, "not_found", "there is no such key")
        except KeyExists:
            return _refused(409, "exists", "this key, or another one with its id, is there already")
        except StoreUnavailable:
            message = "the key database cannot be used now"
            return _refused(503, "unavailable", message, {"Retry-After": RETRY_AFTER})
        except ProxyError as error:
            return _refused(error.status, error.code or error.type, error.message)
        return _enveloped(200, {"success": True, "message": _DONE[action], "data": data})

    def _admit(self, action: str, request: web.Request) -> None:
        """Address, token, method, in this order; raises Denied."""
        if self._allowed:
            found = address(self._client_ip(request))
            if found is None or not is_within(found, self._allowed):
                raise Denied(403, "address_not_allowed", "calls from this address are not allowed")
        token = key_in(_lines(request), _TOKEN_HEADERS)
        if token is None:
            raise Denied(401, "token_missing", "send the token as X-Admin-Token")
        if not compare_digest(digest(token), self._token_digest):
            raise Denied(403, "token_wrong", "this is not the token")
        if request.method != "POST":
            raise Denied(405, "method_not_allowed", "send this call by POST", Allow="POST")
        if self._read_only and action not in READS:
            raise Denied(403, "read_only", "this gateway does not let keys be changed")

    def _carry_out(self, action: str, body: bytes, book: KeyBook) -> Json:
        """Runs in the database's thread, where a long list holds up nobody."""
        calls = KeyCalls(book, who=self._who, at=self._wall(), random=self._random)
        return CALLS[action](calls, _object(body))


def _object(body: bytes) -> dict[str, Any]:
    """The request; none at all is an empty one."""
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise BadFields(["the body is not JSON"]) from None
    if not isinstance(found, dict):
        raise BadFields(["the body must be a JSON object"])
    return found


def _refused(status: int, code: str, message: str, headers: "dict[str, str] | None" = None) -> web.Response:
    return _enveloped(status, {"success": False, "message": message, "error": code}, headers)


def _enveloped(status: int, envelope: Json, headers: "dict[str, str] | None" = None) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(envelope),
        headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
    )


def _lines(request: web.Request) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in request.headers.items()
    ]
