"""The configuration as one tree of frozen values.

`Config` is what the rest of the program sees: every default filled in, every pool,
backend and model complete in itself, and nothing in it that changes later.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from proxy.config.schema_auth import Admin, Auth
from proxy.config.schema_limits import RateLimit
from proxy.config.schema_pools import Backend, Discovery, HealthCheck, Model, Pool, Routing
from proxy.config.schema_storage import Storage
from proxy.config.schema_usage import Usage
from proxy.config.types import (
    Duration,
    DurationOrZero,
    Section,
    Size,
    at_start,
    internal,
    no_op,
    reads,
    says,
    writes,
)


class Tls(Section, frozen=True, kw_only=True):
    """TLS towards clients."""

    enabled: Annotated[bool, at_start("Speak TLS; on when the section is written.")] = True
    cert_file: Annotated[str, reads("PEM file with the certificate and its chain.", restart=True)] = ""
    key_file: Annotated[str, reads("PEM file with the key.", restart=True)] = ""
    client_ca_file: Annotated[str, reads("PEM file with client certificates' authorities.", restart=True)] = (
        ""
    )
    client_auth: Annotated[
        Literal["none", "request", "require"], at_start("Whether clients must show a certificate.")
    ] = "none"
    min_version: Annotated[Literal["1.2", "1.3"], at_start("The oldest TLS version allowed.")] = "1.2"


class Cors(Section, frozen=True, kw_only=True):
    """Answers to browsers' cross-origin questions."""

    enabled: Annotated[bool, says("Answer them; on when the section is written.")] = True
    allowed_origins: Annotated[tuple[str, ...], says("Origins, or `*` for all.")] = ("*",)
    allowed_methods: Annotated[tuple[str, ...], says("Methods.")] = ("GET", "POST", "OPTIONS")
    allowed_headers: Annotated[tuple[str, ...], says("Request headers, or `*` for all.")] = ("*",)
    expose_headers: Annotated[tuple[str, ...], says("Answer headers a page may read.")] = ("x-request-id",)
    allow_credentials: Annotated[bool, says("Allow cookies; needs origins by name.")] = False
    max_age: Annotated[DurationOrZero, says("How long a browser may remember the answer.")] = 86400.0


class Server(Section, frozen=True, kw_only=True):
    """What clients connect to."""

    listen: Annotated[
        str,
        at_start("host:port, :port for all addresses, [::1]:port, or unix:/path; port 0 takes a free one."),
    ] = "127.0.0.1:8000"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)], at_start("Processes that share the port; a core each.")
    ] = 1
    prefixes: Annotated[
        tuple[Annotated[str, Meta(pattern="^/")], ...], says("Paths that are forwarded, with all below them.")
    ] = ("/v1/",)
    tls: Annotated[Tls, at_start("TLS towards clients.")] = Tls(enabled=False)
    max_body_size: Annotated[Size, says("Largest request body; more is answered with 413.")] = 100 * 1024**2
    max_header_bytes: Annotated[Size, says("Largest request head; more is answered with 431 or 414.")] = (
        64 * 1024
    )
    read_timeout: Annotated[
        Duration,
        says(
            "Longest silence inside a request's head or body; then 408 and the end. "
            "A TLS handshake may take as long, and 10 s at most (that from the next start on)."
        ),
    ] = 10.0
    idle_timeout: Annotated[Duration, says("How long an idle client connection is kept.")] = 75.0
    shutdown_timeout: Annotated[DurationOrZero, says("How long streams may go on after SIGTERM.")] = 30.0
    trusted_proxies: Annotated[
        tuple[str, ...], says("Addresses or networks whose X-Forwarded-For is believed.")
    ] = ()
    cors: Annotated[Cors, says("For clients in browsers.")] = Cors(enabled=False)
    write_timeout: Annotated[
        Duration | None, no_op("A stream may last; a client that stops reading stops its upstream.")
    ] = None


class Log(Section, frozen=True, kw_only=True):
    """The program's own log. Keys, prompts and answers are never in it."""

    level: Annotated[Literal["debug", "info", "warning", "error"], says("The least that is written.")] = (
        "info"
    )
    format: Annotated[Literal["json", "text"], says("A JSON object or plain text a line.")] = "json"
    output: Annotated[Literal["stdout", "stderr"], at_start("Where to.")] = "stderr"


class AccessFile(Section, frozen=True, kw_only=True):
    """A file for the access log; SIGHUP opens it anew, so logrotate can move it."""

    path: Annotated[str, writes("The file.", restart=False)] = "access.log"


class AccessLog(Section, frozen=True, kw_only=True):
    """One line for each request."""

    enabled: Annotated[bool, says("Write it.")] = True
    format: Annotated[Literal["json", "text"], says("A JSON object a line, or the combined format.")] = "json"
    output: Annotated[Literal["stdout", "stderr", "file"], says("Where to.")] = "stdout"
    file: Annotated[AccessFile, says("For output: file.")] = AccessFile()


class Logging(Section, frozen=True, kw_only=True):
    """What is written about requests."""

    access: Annotated[AccessLog, says("The access log.")] = AccessLog()
    long_running_after: Annotated[
        Duration | None, says("Age from which a running request is reported, in log and metrics.")
    ] = None


class Metrics(Section, frozen=True, kw_only=True):
    """Figures for Prometheus."""

    enabled: Annotated[bool, at_start("Serve them.")] = True
    path: Annotated[Annotated[str, Meta(pattern="^/")], at_start("Where.")] = "/metrics"
    listen: Annotated[
        str, at_start("An address of its own, written as in server.listen; empty means the main one.")
    ] = ""
    custom_labels: Annotated[dict[str, str], at_start("Labels put on every figure.")] = field(
        default_factory=dict
    )
    latency_buckets: Annotated[
        tuple[Annotated[float, Meta(gt=0)], ...], at_start("Bounds of latency histograms, in milliseconds.")
    ] = (10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000)


class Config(Section, frozen=True, kw_only=True):
    """LLMProxy's configuration."""

    server: Annotated[Server, says("What clients connect to.")] = Server()
    log: Annotated[Log, says("The program's own log.")] = Log()
    auth: Annotated[Auth, says("Who may use the gateway.")] = Auth(enabled=False)
    backends: Annotated[
        tuple[Backend, ...], says("The upstreams, where one pool is enough; it is called `default`.")
    ] = ()
    pools: Annotated[dict[str, Pool], says("Several pools of upstreams, by name.")] = field(
        default_factory=dict
    )
    models: Annotated[tuple[Model, ...], says("Names that clients may ask for.")] = ()
    routing: Annotated[Routing, says("How requests find a backend.")] = Routing()
    rate_limit: Annotated[RateLimit, says("How much may come in.")] = RateLimit(enabled=False)
    health_check: Annotated[HealthCheck, says("Active checks of backends.")] = HealthCheck(enabled=False)
    usage: Annotated[Usage, says("Records of what was used.")] = Usage(enabled=False)
    metrics: Annotated[Metrics, says("Figures for Prometheus.")] = Metrics()
    logging: Annotated[Logging, says("What is written about requests.")] = Logging()
    admin: Annotated[Admin, says("The administration API.")] = Admin(enabled=False)
    storage: Annotated[Storage, says("Databases and caches.")] = Storage()
    discovery: Annotated[Discovery, says("Backends that come and go.")] = Discovery(enabled=False)

    origin: Annotated[str, internal()] = ""
    notes: Annotated[tuple[str, ...], internal()] = ()
