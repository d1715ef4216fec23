"""What goes on beside the requests for the endpoints: checks, engines' figures, tokens, discovery.

It outlives a reload. What a pool's sources say reaches the generation that
serves by `on_found`; everything else is told which endpoints there are now.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from proxy import clock
from proxy.config import Config
from proxy.config import schema_pools as schema
from proxy.runtime.pools import LivePool, Transport, check_settings, sentinel_settings
from proxy.upstream.credentials import Tokens, TokenSettings
from proxy.upstream.discovery import Discovery, Found
from proxy.upstream.engines import Engines
from proxy.upstream.fetch import Fetcher
from proxy.upstream.prober import Prober
from proxy.upstream.sentinel import Sentinel
from proxy.wire.tunnel import OutboundProxy

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

ENGINE_LOAD = "engine_load"


@dataclass(frozen=True, slots=True)
class _Sources:
    """What discovery is made from; equal ones need no new start."""

    discovery: schema.Discovery
    databases: tuple[object, ...]


class Background:
    """Started once, then told of every change."""

    def __init__(self) -> None:
        self._chance = Random().random
        self._fetcher = Fetcher()
        self._prober = Prober(clock.monotonic, self._chance)
        self._sentinel = Sentinel(self._chance)
        self._engines = Engines(clock.monotonic, self._chance)
        self._tokens = Tokens(self._fetcher, clock.wall, self._chance)
        self._sources: _Sources | None = None
        self._discovery: Discovery | None = None
        self.on_found: Callable[[str], None] = _nobody_listens

    async def follow(self, config: Config) -> None:
        """Look for backends where this configuration says; returns after everybody's first look."""
        wanted = _sources(config)
        if wanted == self._sources:
            return
        old, self._sources = self._discovery, wanted
        fresh = self._make(config) if wanted is not None else None
        if old is None:
            self._discovery = fresh  # whoever serves already takes what is reported on the way
        if fresh is not None:
            await fresh.start()
        self._discovery = fresh
        if old is not None:
            await old.close()

    def found(self, pool: str) -> tuple[Found, ...]:
        """What the pool's sources say by now."""
        return self._discovery.found(pool) if self._discovery is not None else ()

    def watch(self, pools: Iterable[LivePool]) -> None:
        """Work for the endpoints of these pools from now on."""
        pools = tuple(pools)
        claimed = [(live.settings, endpoint) for live in pools for endpoint in live.pool.endpoints]
        self._prober.watch(
            {
                endpoint: check_settings(settings.health_check)
                for settings, endpoint in claimed
                if settings.health_check.enabled
            }
        )
        self._sentinel.watch(
            {
                endpoint: sentinel_settings(live.settings, endpoint)
                for live in pools
                if _has_alternatives(live)
                for endpoint in live.pool.endpoints
            }
        )
        self._engines.watch(
            endpoint for settings, endpoint in claimed if settings.load_balance == ENGINE_LOAD
        )
        self._tokens.watch(
            {
                endpoint: token_settings(oauth, endpoint.spec.proxy)
                for _, endpoint in claimed
                if (oauth := _transport(endpoint.spec.transport).oauth) is not None
            }
        )

    async def close(self) -> None:
        if self._discovery is not None:
            await self._discovery.close()
        await self._prober.close()
        await self._sentinel.close()
        await self._engines.close()
        await self._tokens.close()
        await self._fetcher.close()

    def _make(self, config: Config) -> Discovery:
        from proxy.upstream.discovery.sources import make_discovery  # all kinds of sources, which few need

        databases = {database.name: database for database in config.storage.databases}

        def engine(name: str) -> "AsyncEngine":
            from proxy.stores.sql_engine import sql_engine  # needs llmproxy[sql]

            return sql_engine(databases[name])

        return make_discovery(
            config.discovery,
            self._fetcher,
            engine=engine,
            changed=lambda pool, found: self.on_found(pool),
            chance=self._chance,
        )


def _has_alternatives(live: LivePool) -> bool:
    """Whether it matters that a server answers nobody: requests may go elsewhere."""
    return len(live.pool.endpoints) > 1 or live.retry.leaves_unresponsive


def token_settings(oauth: schema.OAuth, proxy: OutboundProxy | None) -> TokenSettings:
    return TokenSettings(
        token_url=oauth.token_url,
        client_id=oauth.client_id,
        refresh_token_file=oauth.refresh_token_file,
        client_secret=oauth.client_secret,
        scope=oauth.scope,
        refresh_ahead=oauth.refresh_ahead,
        proxy=proxy,
    )


def _sources(config: Config) -> _Sources | None:
    if not config.discovery.enabled:
        return None
    return _Sources(config.discovery, config.storage.databases)


def _transport(transport: object) -> Transport:
    assert isinstance(transport, Transport)
    return transport


def _nobody_listens(pool: str) -> None:
    pass
