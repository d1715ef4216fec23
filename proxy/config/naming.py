"""Names that a file may leave out, and pools that follow from others."""

from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec import structs

from proxy.config.reflect import tag_of
from proxy.config.schema import Config
from proxy.config.schema_auth import KeySourceBase, StatusCodes
from proxy.config.schema_pools import Backend, Pool, Routing, SourceBase
from proxy.config.schema_usage import ReporterBase

Named = TypeVar("Named", bound=KeySourceBase | SourceBase | ReporterBase)


def with_names(config: Config) -> Config:
    """The configuration with every name filled in."""
    pools = {name: _pool(pool) for name, pool in config.pools.items()}
    routing = _routing(config.routing, list(pools))
    return structs.replace(
        config,
        pools=pools,
        routing=routing,
        models=tuple(
            structs.replace(model, pool=model.pool or routing.default_pool) for model in config.models
        ),
        auth=structs.replace(
            config.auth,
            pipeline=_named(config.auth.pipeline),
            status_codes=_status_codes(config.auth.status_codes),
        ),
        usage=structs.replace(config.usage, reporters=_named(config.usage.reporters)),
        discovery=structs.replace(config.discovery, sources=_named(config.discovery.sources)),
    )


def _pool(pool: Pool) -> Pool:
    return structs.replace(pool, backends=tuple(map(named_backend, pool.backends)))


def named_backend(backend: Backend) -> Backend:
    """A backend without a name is called by its host and port."""
    if backend.name:
        return backend
    try:
        parts = urlsplit(backend.url)
    except ValueError:  # refused by the checks
        return backend
    return structs.replace(backend, name=parts.netloc.rpartition("@")[2] + parts.path.rstrip("/"))


def _routing(routing: Routing, pools: list[str]) -> Routing:
    """The default pool is `default`, or the only one; with several others there is none."""
    if not pools or routing.default_pool != "default" or "default" in pools:
        return routing
    return structs.replace(routing, default_pool=pools[0] if len(pools) == 1 else "")


def _status_codes(codes: StatusCodes) -> StatusCodes:
    """An entry that says only part of it keeps the rest of its default."""
    defaults = StatusCodes()
    return StatusCodes(
        **{
            name: structs.replace(code, http_code=code.http_code or getattr(defaults, name).http_code)
            for name, code in structs.asdict(codes).items()
        }
    )


def _named(entries: Iterable[Named]) -> tuple[Named, ...]:
    """Entries without a name are called by their type, and counted where that is not enough."""
    named: list[Named] = []
    for entry in entries:
        kind = tag_of(entry)
        same = sum(tag_of(other) == kind for other in named)
        name = entry.name or (f"{kind}-{same + 1}" if same else kind)
        named.append(structs.replace(entry, name=name))
    return tuple(named)
