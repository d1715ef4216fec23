"""One immutable generation: everything a request looks at while it is served."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from proxy import clock
from proxy.access import Credential, may_use, trusted_networks
from proxy.config import Config, schema_pools
from proxy.runtime.adapters import adapters_by_model, vocabulary
from proxy.runtime.keys import Keys
from proxy.runtime.pools import LivePool, live_pool, workers_share
from proxy.runtime.routes import Route, Routes
from proxy.runtime.services import Services
from proxy.sinks.access_log import AccessLog
from proxy.stores.audit_log import AuditLog
from proxy.stores.key_sources import KeyServices
from proxy.upstream.discovery import backends_of
from proxy.upstream.model_lists import MIN_AGE_SECONDS
from proxy.upstream.models import Json, ModelTable, merge
from proxy.wire.common_heads import CommonHeads
from proxy.wire.head_memory import HeadMemory

log = logging.getLogger(__name__)

# Bytes of request heads that are remembered, twice over: ten thousand clients with small heads, or three
# thousand coding agents. With all that is kept beside them they come to 15 MiB where each has a session's
# name too, to half of that where they differ in nothing but their keys.
MAX_REMEMBERED_HEADS = 1024 * 1024

# Open to everybody: a load balancer's checks and a person's first look have no key.
OPEN_PATHS = (b"/", b"/health", b"/ready")

# Asks for a token of its own.
ADMIN_PATH = b"/admin/keys/"


class Runtime:
    """Built by `build`, closed after its last exchange."""

    def __init__(
        self,
        config: Config,
        services: Services,
        keys: Keys | None,
        key_services: KeyServices,
        generation: int,
    ) -> None:
        self.config = config
        self.key_services = key_services
        self.services = services
        self.generation = generation
        self.keys = keys
        self.trusted_proxies = trusted_networks(config.server.trusted_proxies)
        self.limits = services.limits if config.rate_limit.enabled or keys is not None else None
        self.max_body_size = config.server.max_body_size
        self.access_format = config.logging.access.format
        self.credential_names = _credential_names(config)
        self.heads = HeadMemory(CommonHeads(self.credential_names).read, MAX_REMEMBERED_HEADS)
        self.prefixes = tuple(prefix.encode() for prefix in config.server.prefixes)
        self._open = frozenset((*OPEN_PATHS, config.metrics.path.encode()))
        self._skipped = tuple(path.encode() for path in config.auth.skip_paths)
        self._exchanges = 0
        self._is_retired = False
        self.closing: asyncio.Task[None] | None = None
        self.made_at = int(clock.wall())
        self.live = self._claim_pools()
        self.pools = {name: live.pool for name, live in self.live.items()}
        default_pool = config.routing.default_pool
        table = ModelTable(
            config.models, config.routing.fallback, pools=self.live.keys(), default_pool=default_pool
        )
        self.routes = Routes(
            table, self.live, adapters_by_model(config.models, services.secret, services.adapter_memory)
        )
        # With one pool, no names of its own and no limits by model, every model goes the same way.
        self.models_matter = (
            len(self.live) > 1 or len(config.models) > 1 or config.rate_limit.per_model.enabled
        )

    @classmethod
    async def build(cls, config: Config, services: Services, previous: "Runtime | None") -> "Runtime":
        """The next generation; raises ConfigError or OSError where it cannot be built."""
        if previous is not None:
            key_services = previous.key_services
        else:
            audit_log = AuditLog(Path(config.admin.audit_log) if config.admin.audit_log else None)
            key_services = KeyServices(config, audit_log)
        keys = await Keys.build(config, key_services) if config.auth.enabled else None
        generation = previous.generation + 1 if previous is not None else 1
        return cls(config, services, keys, key_services, generation)

    def _claim_pools(self) -> dict[str, LivePool]:
        return {
            name: live_pool(
                name,
                settings,
                self._backends(name),
                registry=self.services.endpoints,
                credential_names=self.credential_names,
            )
            for name, settings in self.config.pools.items()
        }

    def take_over(self) -> None:
        """This generation serves from now on: what works in the background works for it."""
        self.services.background.on_found = self._take_found
        for name, live in self.live.items():
            live.replace(self._backends(name), self.services.endpoints)
        self.services.adapter_memory.forget_others([vocabulary(model) for model in self.config.models])
        self._watch()

    def _take_found(self, pool: str) -> None:
        """A pool's sources have changed what they say."""
        live = self.live.get(pool)
        if live is not None and live.replace(self._backends(pool), self.services.endpoints):
            names = [endpoint.name for endpoint in live.pool.endpoints]
            log.info("backends changed", extra={"pool": pool, "backends": names})
            self._watch()

    def _watch(self) -> None:
        services = self.services
        services.background.watch(self.live.values())
        services.model_lists.forget_others([e for pool in self.pools.values() for e in pool.endpoints])

    def _backends(self, pool: str) -> tuple[schema_pools.Backend, ...]:
        """What the pool serves from: what the file says, and what was found by now."""
        settings, discovery = self.config.pools[pool], self.config.discovery
        if not discovery.enabled:
            return workers_share(settings.backends, self.config.server.workers)
        found = self.services.background.found(pool)
        backends = backends_of(found, settings, takes_first=discovery.mode == "first")
        return workers_share(backends, self.config.server.workers)

    @property
    def access_log(self) -> AccessLog | None:
        return self.services.access_log

    # -- what middlewares ask ----------------------------------------------

    def is_open_page(self, target: bytes) -> bool:
        """Whether this page of ours needs no key."""
        path = target.partition(b"?")[0]
        return path in self._open or path.startswith((ADMIN_PATH, *self._skipped))

    def skips_key(self, target: bytes) -> bool:
        """Whether the configuration leaves this path open; one that a server may read as another is not."""
        path = target.partition(b"?")[0]
        if not self._skipped or not path.startswith(self._skipped):
            return False
        lowered = path.lower()
        return not any(sign in lowered for sign in (b"/.", b"//", b"\\", b"%2e", b"%2f", b"%5c"))

    def forwards(self, target: bytes) -> bool:
        return target.startswith(self.prefixes)

    async def route_for(self, model: str | None) -> Route | None:
        """The route of a model that is not configured by name; None if nobody serves it."""
        if model is None or not self.config.models or self.routes.is_configured(model):
            return self.routes.find(model)
        pool = self._reporting(model)
        if pool is None:
            # Unknown here: a model that has just been loaded is on its server's list.
            await self.services.model_lists.refresh(self.pools.values(), MIN_AGE_SECONDS)
            pool = self._reporting(model)
        return self.routes.reported(model, pool) if pool is not None else None

    def known_route(self, model: str | None) -> Route | None:
        """The route where it is known without asking anybody."""
        known = self.routes.known(model)
        if known is not None:
            return known
        if model is None or not self.config.models or self.routes.is_configured(model):
            return self.routes.find(model)
        return None

    async def visible_models(self, credential: Credential | None) -> list[Json]:
        """OpenAI's model objects, those this key may use."""
        lists = self.services.model_lists
        await lists.refresh(self.pools.values())
        reported: dict[str, Sequence[Json]] = {name: lists.known(pool) for name, pool in self.pools.items()}
        return merge(
            self.config.models,
            reported,
            lambda model: may_use(credential, model),
            default_pool=self.config.routing.default_pool,
            lists_unlisted=True,
            created=self.made_at,
        )

    def _reporting(self, model: str) -> str | None:
        lists = self.services.model_lists
        for name, pool in self.pools.items():
            if any(entry["id"] == model for entry in lists.known(pool)):
                return name
        return None

    # -- life --------------------------------------------------------------

    def enter(self) -> None:
        """An exchange begins."""
        self._exchanges += 1

    def leave(self) -> None:
        """An exchange is over; the last one of a retired generation closes it."""
        self._exchanges -= 1
        if self._is_retired and not self._exchanges:
            self._close()

    @property
    def is_closed(self) -> bool:
        return self._is_retired and not self._exchanges and (self.closing is None or self.closing.done())

    def retire(self) -> None:
        """Another generation serves from now on, or none."""
        self._is_retired = True
        if not self._exchanges:
            self._close()

    def follow(self, successor: "Runtime") -> None:
        """What still waits here, or tries again, goes where a successor's requests go."""
        if not self._exchanges:
            return
        for name in self.live.keys() & successor.live.keys():
            self.live[name].replace(successor._backends(name), self.services.endpoints)

    def _close(self) -> None:
        for live in self.live.values():
            live.release(self.services.endpoints)
        if self.keys is not None:
            self.closing = asyncio.get_running_loop().create_task(self.keys.close())


def _credential_names(config: Config) -> list[bytes]:
    """The headers, in lower case, that hold clients' keys and never reach an upstream."""
    return [name.lower().encode() for name in config.auth.header_names] if config.auth.enabled else []


class Holder:
    """Holds the generation that new requests get: the one thing a reload changes."""

    def __init__(self) -> None:
        self.runtime: Runtime
        self._retired: set[Runtime] = set()  # those that still have exchanges, or close

    def put(self, runtime: Runtime) -> None:
        """The first generation."""
        self.runtime = runtime
        runtime.take_over()

    def swap(self, runtime: Runtime) -> None:
        old = self.runtime
        self.put(runtime)
        self._retired.add(old)
        old.retire()
        self._retired -= {one for one in self._retired if one.is_closed}
        for one in self._retired:
            one.follow(runtime)

    async def close(self) -> None:
        """End of the process: what the generations hold is let go of."""
        self.runtime.retire()
        closing = [one.closing for one in (self.runtime, *self._retired) if one.closing is not None]
        await asyncio.gather(*closing, return_exceptions=True)
        await self.runtime.key_services.close()
