"""The sources of a configuration, made: imports every kind, so it is loaded where there are any."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.config import schema_pools as schema
from proxy.upstream.discovery.base import Found, Source
from proxy.upstream.discovery.consul import ConsulSource
from proxy.upstream.discovery.discovery import Discovery, Watched
from proxy.upstream.discovery.dns import DnsSource
from proxy.upstream.discovery.etcd import EtcdSource
from proxy.upstream.discovery.http_list import HttpListSource
from proxy.upstream.discovery.kubernetes import KubernetesSource
from proxy.upstream.discovery.static import StaticSource
from proxy.upstream.fetch import Fetcher
from proxy.upstream.fetch_proxied import ProxiedFetcher
from proxy.wire.tunnel import outbound_proxy

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
    if isinstance(source, schema.AskedSource) and source.proxy:
        fetcher = ProxiedFetcher(outbound_proxy(source.proxy))
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


def _found(backend: schema.Backend) -> Found:
    return Found(backend.url, backend.name, backend.weight, section=backend)
