"""Keys below a prefix, by etcd's HTTP gateway; each value is a backend's URL, or an object with one."""

import base64
from collections.abc import Mapping, Sequence

import orjson

from proxy.upstream.ask import NoAnswer
from proxy.upstream.discovery.base import MAX_FOUND, Found, SourceFailed, read_entry
from proxy.upstream.fetch import Fetcher, Unwelcome

# A token that has run out: 401 by the gateway, 400 and 403 from versions that map gRPC otherwise.
_REFUSED = (400, 401, 403)


class EtcdSource:
    """Asks the members in turn until one answers."""

    def __init__(
        self,
        fetcher: Fetcher,
        endpoints: Sequence[str],
        *,
        prefix: str,
        username: str = "",
        password: str = "",
        within: float,
    ) -> None:
        self._fetcher = fetcher
        self._members = [
            (member if "://" in member else f"http://{member}").rstrip("/") for member in endpoints
        ]
        self._prefix = prefix.encode()
        self._username, self._password = username, password
        self._token = ""
        self._within = within

    async def find(self) -> Sequence[Found]:
        failure: NoAnswer = SourceFailed("no member is named")
        for member in list(self._members):
            try:
                return await self._ask(member)
            except NoAnswer as error:
                failure = error
                # The next time begins with the next one.
                self._members.append(self._members.pop(0))
        raise failure

    async def close(self) -> None:
        pass

    async def _ask(self, member: str) -> Sequence[Found]:
        request = {"key": _text(self._prefix), "range_end": _text(_end(self._prefix)), "limit": MAX_FOUND}
        if self._username and not self._token:
            await self._log_in(member)
        try:
            answer = await self._post(member, "/v3/kv/range", request)
        except Unwelcome as refusal:
            if not self._username or refusal.status not in _REFUSED:
                raise
            await self._log_in(member)
            answer = await self._post(member, "/v3/kv/range", request)
        return read_range(answer)

    async def _log_in(self, member: str) -> None:
        self._token = ""
        login = {"name": self._username, "password": self._password}
        answer = await self._post(member, "/v3/auth/authenticate", login)
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise SourceFailed("no token was given")
        self._token = token

    async def _post(self, member: str, path: str, body: Mapping[str, object]) -> object:
        headers = {"Authorization": self._token} if self._token else {}
        return await self._fetcher.json(
            member + path, within=self._within, method="POST", headers=headers, body=body
        )


def read_range(answer: object) -> tuple[Found, ...]:
    """The backends of a range answer; raises SourceFailed."""
    pairs = answer.get("kvs", []) if isinstance(answer, dict) else None
    if not isinstance(pairs, list):
        raise SourceFailed("not a range of keys")
    found = []
    for pair in pairs:
        try:
            value = base64.b64decode(pair["value"], validate=True).decode().strip()
            found.append(read_entry(orjson.loads(value) if value.startswith("{") else value))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceFailed("a value is neither a URL nor a backend as JSON") from error
    return tuple(found)


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode("ascii")


def _end(prefix: bytes) -> bytes:
    """The first key behind all that begin with the prefix; 0 stands for the end of all keys."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\0"
