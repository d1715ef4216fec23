"""Databases and caches that other sections name."""

from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from msgspec import Meta

from proxy.config.types import (
    Count,
    Duration,
    DurationOrZero,
    Section,
    Size,
    at_start,
    confidential,
    no_op,
    says,
    writes,
)

_ASYNC_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}

Port = Annotated[int, Meta(ge=1, le=65535)]


class Database(Section, frozen=True, kw_only=True):
    """One SQL database; needs the extra `llmproxy[sql]`, sqlite included."""

    name: Annotated[str, says("How other sections call it.")] = "default"
    enabled: Annotated[bool, says("Switches it on.")] = True
    driver: Annotated[Literal["postgres", "mysql", "sqlite"], says("What it is.")] = "sqlite"
    dsn: Annotated[
        str, confidential("All in one URL, postgresql://user:password@host/database; or the fields below.")
    ] = ""
    host: Annotated[str, says("Its host, or the directory of a Unix socket.")] = "127.0.0.1"
    port: Annotated[Port | None, says("Its port; default the driver's own.")] = None
    user: Annotated[str, says("Who connects.")] = ""
    password: Annotated[str, confidential("With which password.")] = ""
    database: Annotated[str, says("The database's name.")] = ""
    path: Annotated[str, writes("sqlite only: the file.")] = "data/llmproxy.db"
    max_open_conns: Annotated[Count, says("Connections at the same time.")] = 10
    max_idle_conns: Annotated[Annotated[int, Meta(ge=0)], says("Connections kept open.")] = 2
    conn_max_lifetime: Annotated[DurationOrZero, says("Age at which a connection is replaced.")] = 1800.0
    conn_max_idle_time: Annotated[
        Duration | None, no_op("Idle connections are bounded by max_idle_conns.")
    ] = None
    connect_timeout: Annotated[Duration, says("How long connecting may take.")] = 5.0

    def url(self) -> str:
        """Where it is, as SQLAlchemy's asynchronous drivers want it; holds the password."""
        if self.dsn:
            scheme, _, rest = self.dsn.partition("://")
            return f"{_ASYNC_DRIVERS.get(scheme, scheme)}://{rest}"
        if self.driver == "sqlite":
            return f"sqlite+aiosqlite:///{self.path}"
        credentials = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        database = quote(self.database, safe="")
        if self.host.startswith("/"):  # the directory of a Unix socket
            return f"{_ASYNC_DRIVERS[self.driver]}://{credentials}/{database}?{_socket(self)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{_ASYNC_DRIVERS[self.driver]}://{credentials}{host}{port}/{database}"


class Cache(Section, frozen=True, kw_only=True):
    """One Redis; needs the extra `llmproxy[redis]`."""

    name: Annotated[str, says("How other sections call it.")] = "default"
    enabled: Annotated[bool, says("Switches it on.")] = True
    driver: Annotated[Literal["redis", "memory"], says("What it is; memory is there without a cache.")] = (
        "redis"
    )
    addr: Annotated[str, says("host:port, or unix:/path.")] = "127.0.0.1:6379"
    username: Annotated[str, says("Who connects.")] = ""
    password: Annotated[str, confidential("With which password.")] = ""
    db: Annotated[Annotated[int, Meta(ge=0)], says("The database's number.")] = 0
    tls: Annotated[bool, says("Speak TLS to it.")] = False
    pool_size: Annotated[Count, says("Connections at the same time.")] = 32
    dial_timeout: Annotated[Duration, says("How long connecting may take.")] = 2.0
    read_timeout: Annotated[Duration, says("How long an answer may take.")] = 1.0
    write_timeout: Annotated[Duration | None, no_op("read_timeout covers a whole command.")] = None
    min_idle_conns: Annotated[int | None, no_op("Connections are opened when they are needed.")] = None
    max_size: Annotated[Size | None, no_op("Redis bounds itself (maxmemory).")] = None
    ttl: Annotated[Duration | None, no_op("Every use sets its own; see auth.cache.")] = None
    prefix: Annotated[str, at_start("What the names of our keys in it begin with.")] = "llmproxy:"


class Storage(Section, frozen=True, kw_only=True):
    """Databases and caches; a connection is opened when somebody needs it."""

    databases: Annotated[tuple[Database, ...], says("SQL databases.")] = ()
    caches: Annotated[tuple[Cache, ...], says("Redis servers.")] = ()

    def database_names(self) -> list[str]:
        """The databases that other sections may name."""
        return [database.name for database in self.databases if database.enabled]

    def redis_names(self) -> list[str]:
        """The Redis servers that other sections may name."""
        return [cache.name for cache in self.caches if cache.enabled and cache.driver == "redis"]


def _socket(database: Database) -> str:
    if database.driver == "mysql":
        return urlencode({"unix_socket": database.host})
    return urlencode({"host": database.host} | ({"port": database.port} if database.port else {}))
