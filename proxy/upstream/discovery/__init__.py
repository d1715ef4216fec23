"""Backends that come and go: sources to ask, and what keeps pools in step with them."""

from collections.abc import Sequence

from msgspec import structs

from proxy.config import schema_pools as schema
from proxy.upstream.discovery.base import Found, Source, SourceFailed
from proxy.upstream.discovery.discovery import Discovery, with_names
from proxy.upstream.endpoint import split_url


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


__all__ = ["Discovery", "Found", "Source", "SourceFailed", "backends_of"]
