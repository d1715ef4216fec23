"""The pipeline as it is configured: read what is in files, then open what has to be asked."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from proxy import clock
from proxy.access import Answer, Answers
from proxy.config import Config, ConfigError, Problem
from proxy.config import schema_auth as settings
from proxy.stores.cached_keys import CachedStore, Memory
from proxy.stores.key_book import BUSY_SECONDS, Audited
from proxy.stores.key_database import BuiltinKeys, KeyDatabase
from proxy.stores.key_file import read_key_file
from proxy.stores.key_store import KeyStore
from proxy.stores.key_table import KeyTable, clashes
from proxy.stores.pipeline import Pipeline, Source
from proxy.stores.python_keys import BadCallable, Check, PythonKeys, load_callable
from proxy.stores.use_ledger import TableSource, UseLedger
from proxy.stores.webhook_keys import WebhookKeys

log = logging.getLogger(__name__)

# The built-in database is a file on this host: asking it again costs 0.1 ms, and what another
# process has changed is known here a second later.
BUILTIN_TTL = 1.0
# Connections to a webhook at the same time.
WEBHOOK_CONNECTIONS = 64


class KeyServices:
    """What outlives a reload: the built-in databases, and what keys of files have used."""

    def __init__(self, config: Config, audited: Audited) -> None:
        self._audited = audited
        self._databases: dict[str, KeyDatabase] = {}
        self._caches: dict[str, tuple[object, CachedStore]] = {}
        self.ledger = UseLedger(clock.wall, lambda: self.database(config.admin.db_path))

    def database(self, path: str) -> KeyDatabase:
        """The database in that file; it is opened when it is first used."""
        if path not in self._databases:
            self._databases[path] = KeyDatabase(Path(path), self._audited)
        return self._databases[path]

    def go_on(self, cached: CachedStore, settings: object) -> CachedStore:
        """Let a source that a reload has not changed remember what it remembered before."""
        known, previous = self._caches.get(cached.name, (None, cached))
        if known == settings and previous is not cached:
            cached.adopt(previous)
        self._caches[cached.name] = settings, cached
        return cached

    async def close(self) -> None:
        await self.ledger.close()
        for database in self._databases.values():
            await database.close()


@dataclass(frozen=True, slots=True)
class ReadSources:
    """What was read for each source that is a file, a list or a function."""

    config: Config
    tables: Mapping[str, KeyTable] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class SourceErrors(ConfigError):
    """Problems of several files."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__(errors[0].origin, [problem for error in errors for problem in error.problems])
        self.errors = errors

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def read_sources(config: Config, environ: Mapping[str, str]) -> ReadSources:
    """Everything that can be wrong before anybody is asked, or ConfigError with all of it.

    Blocks: a reload calls it in a thread.
    """
    tables: dict[str, KeyTable] = {}
    checks: dict[str, Check] = {}
    notes: list[str] = []
    errors: list[ConfigError] = []
    for index, source in enumerate(config.auth.pipeline):
        if not source.enabled:
            continue
        reader = _Reader(config, environ, f"auth.pipeline[{index}]", notes.append)
        try:
            match source:
                case settings.StaticKeys():
                    tables[source.name] = reader.static(source)
                case settings.KeyFile():
                    tables[source.name] = reader.key_file(source)
                case settings.PythonKeys():
                    checks[source.name] = reader.callable(source)
                case settings.RedisKeys():
                    reader.require_extra("redis", "llmproxy[redis]")
                case settings.DatabaseKeys():
                    reader.require_extra("sqlalchemy", "llmproxy[sql]")
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise SourceErrors(errors)
    return ReadSources(config, tables, checks, tuple(notes))


@dataclass(frozen=True, slots=True)
class _Reader:
    config: Config
    environ: Mapping[str, str]
    path: str
    note: Callable[[str], None]

    def static(self, source: settings.StaticKeys) -> KeyTable:
        problems = [
            Problem(1, f"{self.path}.keys[{index}]", "", f"{sentence} (keys[{earlier}])")
            for index, earlier, sentence in clashes(source.keys)
        ]
        if problems:
            raise ConfigError(self.config.origin, problems)
        return KeyTable.of(source.name, source.keys)

    def key_file(self, source: settings.KeyFile) -> KeyTable:
        table = read_key_file(Path(source.path), self.environ, name=source.name, note=self.note)
        if self.config.server.workers > 1:
            self._check_shared(table)
        return table

    def _check_shared(self, table: KeyTable) -> None:
        if table.has_quotas:
            raise self._refused(
                "a key in this file has a quota, and several workers would count it apart: keep such keys "
                "in a source of type builtin, redis or database"
            )
        if table.has_limits and self.config.rate_limit.storage == "memory":
            raise self._refused(
                "a key in this file has limits, and several workers would count them apart: write "
                "rate_limit.storage: redis and storage.caches"
            )

    def callable(self, source: settings.PythonKeys) -> Check:
        try:
            return load_callable(source.callable, Path(self.config.origin).parent)
        except BadCallable as error:
            raise self._refused(str(error)) from None

    def require_extra(self, module: str, extra: str) -> None:
        if find_spec(module) is None:
            raise self._refused(f"needs the extra {extra}: pip install '{extra}'")

    def _refused(self, sentence: str) -> ConfigError:
        return ConfigError(self.config.origin, [Problem(1, self.path, "", sentence)])


async def open_pipeline(read: ReadSources, services: KeyServices) -> Pipeline:
    """The pipeline; connections are opened when they are first needed."""
    auth = read.config.auth
    if any(table.has_quotas for table in read.tables.values()):
        await services.ledger.load()
    sources = [_source(source, read, services) for source in auth.pipeline if source.enabled]
    return Pipeline(sources, mode=auth.mode, timeout=auth.timeout)


def _source(source: settings.KeySource, read: ReadSources, services: KeyServices) -> Source:
    if source.name in read.tables:
        return TableSource(read.tables[source.name], services.ledger)
    cache = read.config.auth.cache
    memory = Memory(cache.ttl, cache.negative_ttl, cache.max_entries, cache.grace)
    unchanged = (source, cache, read.config.storage)
    match source:
        case settings.BuiltinKeys():
            return _builtin(source, read.config, memory, services)
        case settings.RedisKeys():
            return services.go_on(_cached(_redis(source, read.config), memory, source.timeout), unchanged)
        case settings.DatabaseKeys():
            return services.go_on(_cached(_database(source, read.config), memory, source.timeout), unchanged)
        case settings.WebhookKeys():
            return services.go_on(_cached(_webhook(source), memory, source.timeout), unchanged)
        case settings.PythonKeys():
            return _cached(PythonKeys(source.name, read.checks[source.name]), memory, source.timeout)
    raise AssertionError(f"nobody opens {type(source).__name__}")


def _cached(store: KeyStore, memory: Memory, timeout: float) -> CachedStore:
    return CachedStore(store, memory, timeout=timeout, monotonic=clock.monotonic, wall=clock.wall)


def _builtin(
    source: settings.BuiltinKeys, config: Config, memory: Memory, services: KeyServices
) -> CachedStore:
    """Remembered for a moment only, and not even that once this process has changed a key."""
    store = BuiltinKeys(source.name, services.database(source.path or config.admin.db_path))
    ttl, negative_ttl = min(memory.ttl, BUILTIN_TTL), min(memory.negative_ttl, BUILTIN_TTL)
    # longer than another process may hold the file, so that no debit is tried twice
    cached = _cached(store, Memory(ttl, negative_ttl, memory.max_entries, memory.grace), 2 * BUSY_SECONDS)
    store.on_change(cached.forget)
    return cached


def _redis(source: settings.RedisKeys, config: Config) -> KeyStore:
    from proxy.stores.redis_client import redis_client
    from proxy.stores.redis_keys import RedisKeys

    cache = next(cache for cache in config.storage.caches if cache.name == source.storage)
    return RedisKeys(source.name, redis_client(cache), source.key_pattern, prefix=cache.prefix)


def _database(source: settings.DatabaseKeys, config: Config) -> KeyStore:
    from proxy.stores.sql_engine import sql_engine
    from proxy.stores.sql_keys import SqlKeys

    database = next(found for found in config.storage.databases if found.name == source.storage)
    return SqlKeys(
        source.name,
        sql_engine(database),
        table=source.table,
        key_column=source.key_column,
        key_format=source.key_format,
        fields=source.fields,
    )


def _webhook(source: settings.WebhookKeys) -> KeyStore:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=WEBHOOK_CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=source.timeout),
    )
    return WebhookKeys(
        source.name,
        session,
        source.url,
        wall=clock.wall,
        method=source.method,
        headers=source.headers,
    )


def answers(codes: settings.StatusCodes) -> Answers:
    """`auth.status_codes` as the decisions use them."""
    return Answers(
        active=_answer(codes.active),
        disabled=_answer(codes.disabled),
        expired=_answer(codes.expired),
        quota_exceeded=_answer(codes.quota_exceeded),
        not_found=_answer(codes.not_found),
    )


def _answer(code: settings.StatusCode) -> Answer:
    return Answer(code.allow, code.http_code, code.message)
