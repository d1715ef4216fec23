"""Listeners, TLS, CORS, metrics and storage."""

from proxy.config.adapt import Note
from proxy.config.checks.place import Place
from proxy.config.schema import Config, Cors, Metrics, Server, Tls
from proxy.config.schema_storage import Database, Storage
from proxy.config.values import bad_dsn, bad_label, bad_listen, bad_network

# Any browser sends a larger head than this.
SMALLEST_HEAD = 1024


def check(config: Config, place: Place, note: Note) -> None:
    _server(config.server, place / "server", note)
    _metrics(config.metrics, place / "metrics")
    _storage(config.storage, place / "storage")
    _listeners(config, place)
    if config.server.workers > 1:
        _shares(config, place / "server", note)


def _server(server: Server, place: Place, note: Note) -> None:
    (place / "listen").judge(server.listen, bad_listen)
    for index, network in enumerate(server.trusted_proxies):
        (place / "trusted_proxies" / index).judge(network, bad_network)
    if server.max_header_bytes < SMALLEST_HEAD:
        (place / "max_header_bytes").refuse("must be 1KiB or more, or no request fits")
    if (place / "prefixes").is_empty(server.prefixes):
        (place / "prefixes").refuse('must name at least one path; ["/"] forwards everything')
    if server.tls.enabled:
        _tls(server.tls, place / "tls")
    if server.cors.enabled:
        _cors(server.cors, place / "cors")


def _tls(tls: Tls, place: Place) -> None:
    for name, value in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        if not value:
            (place / name).refuse("TLS needs cert_file and key_file")
    if tls.client_auth != "none" and not tls.client_ca_file:
        (place / "client_ca_file").refuse("client_auth needs the authorities of client certificates")


def _cors(cors: Cors, place: Place) -> None:
    if cors.allow_credentials and "*" in cors.allowed_origins:
        (place / "allow_credentials").refuse("needs allowed_origins by name; browsers refuse it with `*`")


def _metrics(metrics: Metrics, place: Place) -> None:
    if metrics.listen:
        (place / "listen").judge(metrics.listen, bad_listen)
    for name in metrics.custom_labels:
        (place / "custom_labels" / name).refuse(bad_label(name))
    buckets = metrics.latency_buckets
    if list(buckets) != sorted(set(buckets)):
        (place / "latency_buckets").refuse("must grow from one to the next")


def _listeners(config: Config, place: Place) -> None:
    """Two listeners on one address cannot both start."""
    taken = {config.server.listen: "server.listen"}
    for section, address in (("admin", config.admin.listen), ("metrics", config.metrics.listen)):
        if address and not address.endswith(":0") and address in taken and taken[address] == "server.listen":
            (place / section / "listen").refuse("is server.listen; leave it out to use the main listener")


def _shares(config: Config, place: Place, note: Note) -> None:
    """A backend's max_in_flight is divided among the workers, but none can have less than one."""
    workers = config.server.workers
    for name, pool in config.pools.items():
        for backend in pool.backends:
            if backend.max_in_flight is not None and backend.max_in_flight < workers:
                note(
                    f"{(place / 'workers').written()}: backend {backend.name} in pool {name} takes "
                    f"{backend.max_in_flight} at a time and may get {workers}, one from each worker"
                )


def _storage(storage: Storage, place: Place) -> None:
    (place / "databases").distinct([each.name for each in storage.databases], "name")
    (place / "caches").distinct([each.name for each in storage.caches], "name")
    for index, database in enumerate(storage.databases):
        _database(database, place / "databases" / index)
    for index, cache in enumerate(storage.caches):
        (place / "caches" / index / "addr").judge(cache.addr, bad_listen)


def _database(database: Database, place: Place) -> None:
    if database.dsn:
        (place / "dsn").refuse(bad_dsn(database.dsn))
    elif database.driver != "sqlite" and not database.database:
        (place / "database").refuse("write dsn, or host, user, password and database")
