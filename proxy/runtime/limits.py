"""The limiter as the configuration wants it: in this process, or in Redis for several."""

from typing import TYPE_CHECKING, TypeAlias

from proxy.config import Config
from proxy.config.schema_auth import KeyLimits
from proxy.config.schema_storage import Cache
from proxy.limiters.limits import Limits
from proxy.limiters.spec import LimitSpec, ScopeSpecs

if TYPE_CHECKING:
    from proxy.stores.limits_redis import RedisLimits

Limiter: TypeAlias = "Limits | RedisLimits"

UNIX = "unix:"


def make_limits(config: Config) -> Limiter:
    """Not connected yet: `RedisLimits` has a `start`."""
    settings = config.rate_limit
    if settings.storage != "redis" or not settings.enabled:
        return Limits(limit_specs(config), settings.max_subjects)
    from proxy.stores.limits_redis import RedisLimits, connect  # an extra, and 150 ms of imports

    cache = next(cache for cache in config.storage.caches if cache.name == settings.redis)
    return RedisLimits(
        connect(**_options(cache)),
        limit_specs(config),
        prefix=cache.prefix,
        on_failure=settings.on_store_failure,
    )


def limit_specs(config: Config) -> ScopeSpecs:
    """What the configuration limits, scope by scope."""
    settings = config.rate_limit
    if not settings.enabled:
        return ScopeSpecs()
    scopes = ("global_", "per_key", "per_user", "per_model", "per_ip")
    return ScopeSpecs(
        **{scope: _spec(limits) for scope in scopes if (limits := getattr(settings, scope)).enabled}
    )


def _spec(limits: KeyLimits) -> LimitSpec:
    return LimitSpec(
        limits.requests_per_second,
        limits.requests_per_minute,
        limits.burst_size,
        limits.tokens_per_minute,
        limits.max_concurrent,
    )


def _options(cache: Cache) -> dict[str, object]:
    """What redis-py is told; time-outs are the limiter's own."""
    options: dict[str, object] = {
        "username": cache.username or None,
        "password": cache.password or None,
        "db": cache.db,
    }
    if cache.addr.startswith(UNIX):
        return options | {"unix_socket_path": cache.addr.removeprefix(UNIX)}
    host, _, port = cache.addr.rpartition(":")
    return options | {"host": host.strip("[]") or "127.0.0.1", "port": int(port), "ssl": cache.tls}
