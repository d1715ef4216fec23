"""Backends, pools, models, routing and discovery."""

from proxy.config.adapt import Note
from proxy.config.checks.place import Place
from proxy.config.problems import shown
from proxy.config.reflect import tag_of
from proxy.config.schema import Config
from proxy.config.schema_adapters import Adapter, ClampMaxTokens, ToolCalls
from proxy.config.schema_pools import (
    AskedSource,
    Backend,
    DatabaseSource,
    HealthCheck,
    HttpSource,
    Model,
    Pool,
    Retry,
    Source,
    StaticSource,
)
from proxy.config.values import bad_backend_url, bad_header, bad_header_name, bad_identifier, bad_key, bad_url
from proxy.wire.tunnel import outbound_proxy


def check(config: Config, place: Place, note: Note) -> None:
    for name, pool in config.pools.items():
        _pool(pool, config, place / "pools" / name, note)
    _some_backend(config, place)
    _models(config, place / "models")
    _routing(config, place / "routing")
    _retry(config.routing.retry, place / "routing" / "retry")
    _health_check(config.health_check, place / "health_check")
    for index, source in enumerate(config.discovery.sources):
        _source(source, config, place / "discovery" / "sources" / index, note)
    (place / "discovery" / "sources").distinct([each.name for each in config.discovery.sources], "name")


def _some_backend(config: Config, place: Place) -> None:
    if config.discovery.enabled:
        return
    if not config.pools:
        place.refuse('no upstream is named; write backends: [{url: "http://127.0.0.1:8001"}]')
    for name, pool in config.pools.items():
        here = place / "pools" / name
        if here.is_empty(pool.backends) and (here / "backends").is_empty(pool.backends):
            here.refuse("has no backends")


def _pool(pool: Pool, config: Config, place: Place, note: Note) -> None:
    backends = place / "backends"
    backends.distinct([backend.name for backend in pool.backends if backend.name], "name")
    for index, backend in enumerate(pool.backends):
        _backend(backend, config, backends / index, note)
    if pool.backends and not any(backend.weight for backend in pool.backends):
        backends.refuse("every weight is 0, so nothing would get a request")
    _retry(pool.retry, place / "retry")
    _health_check(pool.health_check, place / "health_check")


def _backend(backend: Backend, config: Config, place: Place, note: Note) -> None:
    (place / "url").judge(backend.url, bad_backend_url)
    (place / "headers").headers(backend.headers, bad_header)
    for index, name in enumerate(backend.remove_headers):
        (place / "remove_headers" / index).judge(name, bad_header_name)
    for index, key in enumerate(backend.api_keys):
        (place / "api_keys" / index).refuse(bad_key(key) if key else "is empty")
    if backend.api_key:
        (place / "api_key").refuse(bad_key(backend.api_key))
    if sum(map(bool, (backend.api_key, backend.api_keys, backend.oauth))) > 1:
        place.refuse("write only one of api_key, api_keys and oauth")
    if backend.oauth is not None:
        (place / "oauth" / "token_url").judge(backend.oauth.token_url, bad_url)
    if backend.proxy:
        (place / "proxy").refuse(_bad_proxy(backend.proxy))
    tls = backend.tls
    if bool(tls.cert_file) != bool(tls.key_file):
        (place / "tls").refuse("a client certificate needs cert_file and key_file")
    for prefix in config.server.prefixes:
        if len(prefix) > 1 and backend.url.rstrip("/").endswith(prefix.rstrip("/")):
            note(
                f"{(place / 'url').written()}: ends with {prefix.rstrip('/')}, and the request's own path "
                f"({prefix}…) is appended to it; usually the URL ends before {prefix}"
            )


def _bad_proxy(text: str) -> str:
    """It may hold a user and password, so nothing of it is shown."""
    try:
        outbound_proxy(text)
    except ValueError as error:
        return str(error)
    return ""


def _retry(retry: Retry, place: Place) -> None:
    if retry.initial_wait > retry.max_wait:
        (place / "initial_wait").refuse("must not be longer than max_wait")


def _health_check(health: HealthCheck, place: Place) -> None:
    if not health.path.startswith("/"):
        (place / "path").refuse("must begin with /")
    if (place / "expected_status").is_empty(health.expected_status):
        (place / "expected_status").refuse("must name at least one status")


def _models(config: Config, place: Place) -> None:
    names = [name for model in config.models for name in (model.id, *model.aliases)]
    seen: set[str] = set()
    for index, model in enumerate(config.models):
        for key, name in [("id", model.id), *(("aliases", alias) for alias in model.aliases)]:
            if name in seen:
                (place / index / key).refuse("another model has this name already", shown(name))
            seen.add(name)
        _model(model, config, names, place / index)


def _model(model: Model, config: Config, names: list[str], place: Place) -> None:
    if model.pool:
        (place / "pool").known(model.pool, config.pools, "pools")
    else:
        (place / "pool").refuse("is missing, and routing.default_pool names none")
    for index, name in enumerate(model.fallback):
        (place / "fallback" / index).known(name, names, "models")
    kinds = [tag_of(adapter) for adapter in model.adapters]
    (place / "adapters").distinct(kinds, "kind")
    for index, adapter in enumerate(model.adapters):
        _adapter(adapter, model, place / "adapters" / index)


def _adapter(adapter: Adapter, model: Model, place: Place) -> None:
    match adapter:
        case ToolCalls():
            if adapter.trigger is not None and adapter.format != "toolify_xml":
                (place / "trigger").refuse("only format: toolify_xml has a trigger")
            if adapter.prompt_file is not None and adapter.mode != "prompt":
                (place / "prompt_file").refuse("only mode: prompt writes a prompt")
        case ClampMaxTokens():
            if model.context_length is None:
                place.refuse("needs the model's context_length")


def _routing(config: Config, place: Place) -> None:
    routing = config.routing
    if (place / "default_pool").node() is not None and routing.default_pool and config.pools:
        (place / "default_pool").known(routing.default_pool, config.pools, "pools")
    for index, fallback in enumerate(routing.fallback):
        for position, name in enumerate(fallback.pools):
            (place / "fallback" / index / "pools" / position).known(name, config.pools, "pools")


def _source(source: Source, config: Config, place: Place, note: Note) -> None:
    if isinstance(source, AskedSource) and source.proxy:
        (place / "proxy").refuse(_bad_proxy(source.proxy))
    match source:
        case StaticSource():
            for index, backend in enumerate(source.backends):
                _backend(backend, config, place / "backends" / index, note)
        case HttpSource():
            (place / "url").judge(source.url, bad_url)
            (place / "headers").headers(source.headers, bad_header)
        case DatabaseSource():
            (place / "storage").known(source.storage, config.storage.database_names(), "storage.databases")
            (place / "table").judge(source.table, bad_identifier)
