"""Backends that come and go: sources to ask, and what keeps pools in step with them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from proxy.config import schema_pools as schema
from proxy.upstream.discovery.base import Found, Source, SourceFailed
from proxy.upstream.discovery.consul import ConsulSource
from proxy.upstream.discovery.discovery import Discovery, Watched, with_names
from proxy.upstream.discovery.dns import DnsSource
from proxy.upstream.discovery.etcd import EtcdSource
from proxy.upstream.discovery.http_list import HttpListSource
from proxy.upstream.discovery.kubernetes import KubernetesSource
from proxy.upstream.discovery.static import StaticSource
from proxy.upstream.endpoint import split_url
from proxy.upstream.fetch import Fetcher

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def make_discovery(
    settings: schema.Discovery,
    fetcher: Fetcher,
    *,
    engine: Callable[[str], "AsyncEngine"],
    changed: Callable[[str, tuple[Found, ...]], None],
    chance: Callable[[], float],
) -> Discovery:
    """What the configuration says.

    `engine` makes the engine of a database by its name; `changed` is told a pool's name and
    all its discovered backends.
    """
    sources = [
        Watched(
            source.name,
            make_source(source, fetcher, engine),
            source.pool,
            source.interval or settings.interval,
        )
        for source in settings.sources
        if source.enabled
    ]
    return Discovery(sources, takes_first=settings.mode == "first", changed=changed, chance=chance)


def make_source(source: schema.Source, fetcher: Fetcher, engine: Callable[[str], "AsyncEngine"]) -> Source:
    """The source that a section describes."""
    within = source.timeout
    match source:
        case schema.StaticSource():
            return StaticSource([_found(backend) for backend in source.backends])
        case schema.DnsSource():
            return DnsSource(source.host, port=source.port, scheme=source.scheme, within=within)
        case schema.HttpSource():
            return HttpListSource(
                fetcher, source.url, method=source.method, headers=source.headers, within=within
            )
        case schema.ConsulSource():
            return ConsulSource(
                fetcher,
                source.addr,
                service=source.service,
                tag=source.tag,
                token=source.token,
                within=within,
            )
        case schema.KubernetesSource():
            return KubernetesSource(
                fetcher,
                namespace=source.namespace,
                service=source.service,
                label_selector=source.label_selector,
                port=source.port,
                within=within,
            )
        case schema.EtcdSource():
            return EtcdSource(
                fetcher,
                source.endpoints,
                prefix=source.prefix,
                username=source.username,
                password=source.password,
                within=within,
            )
        case schema.DatabaseSource():
            from proxy.upstream.discovery.database import DatabaseSource  # needs llmproxy[sql]

            return DatabaseSource(
                engine(source.storage), table_name=source.table, fields=source.fields, within=within
            )


def backends_of(
    found: Sequence[Found], pool: schema.Pool, *, takes_first: bool, template: schema.Backend | None = None
) -> tuple[schema.Backend, ...]:
    """A pool's backends: its own and those that were found, or its own only where none was.

    `template` holds what sources don't say; by default that is the pool's time-outs.
    """
    own = () if takes_first and found else pool.backends
    addresses = {split_url(backend.url) for backend in own}
    base = template or schema.Backend(url="", timeouts=pool.timeouts)
    new = [one for one in found if split_url(one.url) not in addresses]
    taken = {backend.name for backend in own}
    return (*own, *(_backend(one, name, base) for name, one in with_names(new, taken)))


def _backend(found: Found, name: str, base: schema.Backend) -> schema.Backend:
    if found.section is not None:
        return structs.replace(found.section, name=name)
    tls = structs.replace(base.tls, server_name=base.tls.server_name or found.server_name)
    return structs.replace(
        base,
        url=found.url,
        name=name,
        weight=found.weight,
        api_key=found.api_key or base.api_key,
        headers={**base.headers, **found.headers},
        max_in_flight=found.max_in_flight or base.max_in_flight,
        tls=tls,
    )


def _found(backend: schema.Backend) -> Found:
    return Found(backend.url, backend.name, backend.weight, section=backend)


__all__ = ["Discovery", "Fetcher", "Found", "Source", "SourceFailed", "backends_of", "make_discovery"]
