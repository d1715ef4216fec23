"""Access tokens for upstreams that want OAuth2, refreshed before they run out.

One refresher for each refresh token, whatever number of endpoints uses it, since
a provider that hands out a new refresh token with every use takes the second use
of an old one for theft. The file is read before each refresh, so that a token
somebody puts there counts.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import orjson

from proxy.clock import Clock
from proxy.upstream.ask import NoAnswer
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.fetch import Fetcher, Unwelcome
from proxy.upstream.fetch_proxied import ProxiedFetcher
from proxy.upstream.token_file import BadTokenFile, StoredToken, read_token, write_token
from proxy.wire.tunnel import OutboundProxy

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0

# A token endpoint that is down is asked again after 5 s, and at most every 5 minutes.
FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 300.0

# Where an answer does not say how long its token lives (RFC 6749 recommends to).
USUAL_LIFE_SECONDS = 3600.0

# An answer that says less is wrong; believing it would have us ask without end.
MIN_LIFE_SECONDS = 30.0

# OAuth's error codes (RFC 6749, 5.2); nothing else of an answer may reach the log.
_ERROR_CODE = re.compile(r"[a-z_]{1,64}")


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """One refresh token and where it is used."""

    token_url: str
    client_id: str
    refresh_token_file: str
    client_secret: str = field(default="", repr=False)
    scope: str = ""
    refresh_ahead: float = 300.0
    # The way to the token endpoint. No part of what it is: two refreshers must not share a refresh token.
    proxy: OutboundProxy | None = field(default=None, compare=False)


class Tokens:
    """Keeps the endpoints it is told to watch in valid tokens."""

    def __init__(self, fetcher: Fetcher, wall: Clock, chance: Callable[[], float]) -> None:
        self._fetcher = fetcher
        self._wall = wall
        self._chance = chance
        self._refreshers: dict[TokenSettings, _Refresher] = {}

    def watch(self, wanted: Mapping[Endpoint, TokenSettings]) -> None:
        """From now on these; an endpoint whose token is known gets it at once."""
        for settings in self._refreshers.keys() - set(wanted.values()):
            self._refreshers.pop(settings).cancel()
        for settings in dict.fromkeys(wanted.values()):
            refresher = self._refreshers.get(settings)
            if refresher is None:
                refresher = self._refreshers[settings] = _Refresher(
                    settings, self._fetcher, self._wall, self._chance
                )
            refresher.serve(settings, (endpoint for endpoint, its in wanted.items() if its == settings))

    async def close(self) -> None:
        tasks = [refresher.cancel() for refresher in self._refreshers.values()]
        self._refreshers.clear()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Refresher:
    """One refresh token's task."""

    def __init__(
        self, settings: TokenSettings, fetcher: Fetcher, wall: Clock, chance: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._wall = wall
        self._chance = chance
        self._path = Path(settings.refresh_token_file)
        self._endpoints: tuple[Endpoint, ...] = ()
        self._token = ""
        self._unsaved: tuple[str, str] | None = None  # the refresh token in the file, and what replaced it
        self._task = asyncio.create_task(self._run())

    def serve(self, settings: TokenSettings, endpoints: Iterable[Endpoint]) -> None:
        self._settings = settings  # its proxy may have changed
        self._endpoints = tuple(endpoints)
        self._hand_out()

    def cancel(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        expires_at = await self._stored()
        failures = 0
        while True:
            await asyncio.sleep(self._pause(expires_at, failures))
            try:
                expires_at = await self._refresh()
                failures = 0
            except (NoAnswer, BadTokenFile, OSError) as error:
                failures += 1
                extra = {"file": str(self._path), "why": _why(error), "has_token": bool(self._token)}
                log.warning("access token not refreshed", extra=extra)

    def _pause(self, expires_at: float, failures: int) -> float:
        if failures:
            pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), MAX_PAUSE_SECONDS)
            return pause * (0.5 + 0.5 * self._chance())
        left = expires_at - self._wall()
        # A token that lives shorter than twice the time ahead is renewed in the middle of its life.
        return max(left - min(self._settings.refresh_ahead, left / 2), 0.0)

    async def _stored(self) -> float:
        """The end of the access token that the last run left, 0.0 if there is none."""
        try:
            stored = await asyncio.to_thread(read_token, self._path)
        except BadTokenFile:
            return 0.0  # the refresh will say so
        if stored.access_token and stored.expires_at > self._wall():
            self._token = stored.access_token
            self._hand_out()
            return stored.expires_at
        return 0.0

    async def _refresh(self) -> float:
        """Get a new access token; returns when it ends."""
        stored = await asyncio.to_thread(read_token, self._path)
        if self._unsaved is not None and self._unsaved[0] == stored.refresh_token:
            stored = replace(stored, refresh_token=self._unsaved[1])
        answer = await self._ask(_form(self._settings, stored.refresh_token))
        token, life, rotated = read_grant(answer)
        self._token = token
        self._hand_out()
        expires_at = self._wall() + life
        fresh = rotated or stored.refresh_token
        kept = replace(stored, refresh_token=fresh, access_token=token, expires_at=expires_at)
        await self._keep(kept, before=stored.refresh_token)
        log.info("access token refreshed", extra={"file": str(self._path), "life": life})
        return expires_at

    async def _ask(self, form: Mapping[str, str]) -> object:
        settings = self._settings
        fetcher = ProxiedFetcher(settings.proxy) if settings.proxy is not None else self._fetcher
        return await fetcher.json(settings.token_url, within=TIMEOUT_SECONDS, method="POST", form=form)

    async def _keep(self, kept: StoredToken, before: str) -> None:
        try:
            await asyncio.shield(asyncio.to_thread(write_token, self._path, kept))
            self._unsaved = None
        except OSError as error:
            if kept.refresh_token == before:  # nothing is lost but a refresh at the next start
                return
            # The provider replaced the refresh token, and the new one now lives in our memory only.
            in_file = self._unsaved[0] if self._unsaved is not None else before
            self._unsaved = in_file, kept.refresh_token
            extra = {"file": str(self._path), "why": error.strerror}
            log.error("refresh token not written back", extra=extra)

    def _hand_out(self) -> None:
        if self._token:
            for endpoint in self._endpoints:
                endpoint.use_token(self._token.encode("ascii"))


def read_grant(answer: object) -> tuple[str, float, str]:
    """Access token, its life in seconds, and a new refresh token or ''; raises NoAnswer."""
    if not isinstance(answer, dict):
        raise NoAnswer("not a grant")
    token, life, rotated = (answer.get(key) for key in ("access_token", "expires_in", "refresh_token"))
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise NoAnswer("no access token in the answer")
    try:
        seconds = float(life) if isinstance(life, int | float | str) else USUAL_LIFE_SECONDS
    except ValueError:
        seconds = USUAL_LIFE_SECONDS
    if not isfinite(seconds):  # float() knows "nan" and "inf"; nothing can wait for them
        seconds = USUAL_LIFE_SECONDS
    return token, max(seconds, MIN_LIFE_SECONDS), rotated if isinstance(rotated, str) else ""


def _form(settings: TokenSettings, refresh_token: str) -> dict[str, str]:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
        "scope": settings.scope,
    }
    return {name: value for name, value in form.items() if value}


def _why(error: Exception) -> str:
    """Words for the log, with OAuth's own code where there is one."""
    if isinstance(error, Unwelcome):
        try:
            code = orjson.loads(error.reason)["error"]
        except (ValueError, KeyError, TypeError):
            return str(error)
        if isinstance(code, str) and _ERROR_CODE.fullmatch(code):
            return f"{error}, {code}"
    return str(error)
