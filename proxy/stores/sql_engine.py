"""An engine for the database that a part of the configuration names."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from proxy.config.schema_storage import Database

_DRIVERS: Mapping[str, str] = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}


def sql_engine(database: Database) -> AsyncEngine:
    """Connects when it is first used. Values of statements are keys, so no error shows them."""
    url = _url(database)
    is_file = url.get_backend_name() == "sqlite"
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=max(1, min(database.max_idle_conns, database.max_open_conns)),
        max_overflow=max(0, database.max_open_conns - max(1, database.max_idle_conns)),
        pool_recycle=int(database.conn_max_lifetime) or -1,
        pool_timeout=database.connect_timeout,
        connect_args=_connect_args(url, database.connect_timeout, is_file=is_file),
    )


def _url(database: Database) -> URL:
    if database.dsn:
        url = make_url(database.dsn)
        backend, plus, _driver = url.drivername.partition("+")
        return url if plus else url.set(drivername=_DRIVERS[backend])
    drivername = _DRIVERS[database.driver]
    if database.driver == "sqlite":
        return URL.create(drivername, database=database.path)
    is_socket = database.host.startswith("/")
    return URL.create(
        drivername,
        username=database.user or None,
        password=database.password or None,
        host=None if is_socket else database.host,
        port=database.port,
        database=database.database or None,
        query=_socket(database.host, drivername) if is_socket else {},
    )


def _socket(path: str, drivername: str) -> Mapping[str, str]:
    """PostgreSQL wants the directory, MySQL the socket itself."""
    return {"unix_socket": path} if drivername.startswith("mysql") else {"host": path}


def _connect_args(url: URL, timeout: float, *, is_file: bool) -> dict[str, Any]:
    if is_file or url.drivername.endswith("asyncpg"):
        return {"timeout": timeout}
    return {"connect_timeout": timeout} if url.get_backend_name() == "mysql" else {}
