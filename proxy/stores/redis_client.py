"""A connection pool to the Redis that a part of the configuration names."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy.config.schema_storage import Cache

_UNIX = "unix:"


def redis_client(cache: Cache) -> Redis:
    """Connects when it is first used; a connection that has died in the pool is tried once more."""
    options: dict[str, Any] = {
        "username": cache.username or None,
        "password": cache.password or None,
        "db": cache.db,
        "socket_timeout": cache.read_timeout,
        "retry": Retry(NoBackoff(), 1),
        "max_connections": cache.pool_size,
        "timeout": cache.read_timeout,
    }
    if cache.addr.startswith(_UNIX):
        path = cache.addr.removeprefix(_UNIX)
        pool = BlockingConnectionPool(connection_class=UnixDomainSocketConnection, path=path, **options)
    else:
        host, _, port = cache.addr.rpartition(":")
        pool = BlockingConnectionPool(
            connection_class=SSLConnection if cache.tls else Connection,
            host=host.strip("[]") or "127.0.0.1",
            port=int(port),
            socket_connect_timeout=cache.dial_timeout,
            **options,
        )
    return Redis.from_pool(pool)
