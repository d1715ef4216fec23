"""Where requests go: backends in pools, models, and how a request finds its way."""

from typing import Annotated, Literal

from msgspec import Meta, field

from proxy.config.schema_adapters import Adapter
from proxy.config.types import (
    Count,
    Duration,
    DurationOrZero,
    Section,
    Share,
    choice,
    confidential,
    no_op,
    reads,
    says,
    writes,
)

RetryCause = Literal["5xx", "first_byte_timeout", "no_answer", "unresponsive"]


class Timeouts(Section, frozen=True, kw_only=True):
    """How long an upstream may be silent, in every state."""

    connect: Annotated[Duration, says("Until the connection stands, TLS included.")] = 5.0
    first_byte: Annotated[Duration, says("From the request's last byte to the answer's first.")] = 300.0
    idle: Annotated[Duration, says("Between two bytes of an answer.")] = 300.0
    total: Annotated[Duration | None, says("For the whole exchange; default no limit.")] = None
    keep_alive: Annotated[
        DurationOrZero,
        says("How long an idle connection is kept; stay below the server's own (uvicorn: 5 s)."),
    ] = 3.0


class ModelTimeouts(Section, frozen=True, kw_only=True):
    """Time-outs of one model; what is not said comes from its pool."""

    connect: Annotated[Duration | None, says("As in routing.timeouts.")] = None
    first_byte: Annotated[Duration | None, says("As in routing.timeouts.")] = None
    idle: Annotated[Duration | None, says("As in routing.timeouts.")] = None
    total: Annotated[Duration | None, says("As in routing.timeouts.")] = None


class OAuth(Section, frozen=True, kw_only=True):
    """A backend's access tokens from an OAuth2 refresh token."""

    token_url: Annotated[str, says("Where tokens are refreshed.")]
    client_id: Annotated[str, says("The client's id there.")]
    refresh_token_file: Annotated[
        str,
        writes("File with the refresh token (mode 0600); a new one is written back.", restart=False),
    ]
    client_secret: Annotated[str, confidential("The client's secret there, if it has one.")] = ""
    scope: Annotated[str, says("The scope to ask for.")] = ""
    refresh_ahead: Annotated[DurationOrZero, says("How long before its end a token is renewed.")] = 300.0


class UpstreamTls(Section, frozen=True, kw_only=True):
    """TLS towards an https backend."""

    ca_file: Annotated[str, reads("PEM file with the authorities to trust; default the system's.")] = ""
    cert_file: Annotated[str, reads("PEM file with our client certificate.")] = ""
    key_file: Annotated[str, reads("PEM file with its key.")] = ""
    server_name: Annotated[str, says("The name the certificate must carry; default the URL's host.")] = ""
    verify: Annotated[bool, says("Check the certificate; false is for tests only.")] = True


class Backend(Section, frozen=True, kw_only=True):
    """One upstream address."""

    url: Annotated[
        str, says("http:// or https://, host and port; the request's path (/v1/…) is appended to it.")
    ]
    name: Annotated[str, says("How logs and metrics call it; default the URL's host and port.")] = ""
    weight: Annotated[
        Annotated[int, Meta(ge=0, le=1000)],
        says("Its share with `weighted`, and its size for the others; 0 gets nothing new."),
    ] = 1
    headers: Annotated[dict[str, str], confidential("Headers set on every request to it.")] = field(
        default_factory=dict
    )
    remove_headers: Annotated[
        tuple[str, ...], says("Headers of the client that it must not see (llama-cpp-python: X-Request-Id).")
    ] = ()
    api_key: Annotated[str, confidential("Sent as `Authorization: Bearer` in place of the client's key.")] = (
        ""
    )
    api_keys: Annotated[
        tuple[str, ...],
        confidential("Several of them, changed when one is refused (401) or throttled (429)."),
    ] = ()
    oauth: Annotated[OAuth | None, says("Access tokens instead of a fixed key.")] = None
    proxy: Annotated[
        str,
        confidential(
            "Outbound proxy: http:// or https:// (by CONNECT), socks5://, or socks5h:// (it looks names up); "
            "with user:password@ where it wants them."
        ),
    ] = ""
    tls: Annotated[UpstreamTls, says("TLS towards it.")] = UpstreamTls()
    max_in_flight: Annotated[
        Count | None, says("Requests it gets at the same time; more wait or go elsewhere.")
    ] = None
    timeout: Annotated[
        Duration | None, says("Its longest silence, before and between bytes (timeouts.first_byte and idle).")
    ] = None
    connect_timeout: Annotated[Duration | None, says("Short for timeouts.connect.")] = None
    timeouts: Annotated[Timeouts, says("Its time-outs; what is not said comes from its pool.")] = Timeouts()
    max_idle_conns: Annotated[
        int | None, no_op("Idle connections are bounded by timeouts.keep_alive, not by number.")
    ] = None


class HealthCheck(Section, frozen=True, kw_only=True):
    """Active checks of a pool's backends."""

    enabled: Annotated[bool, says("Check; on when the section is written.")] = True
    path: Annotated[str, says("What is asked for.")] = "/health"
    method: Annotated[Literal["GET", "HEAD", "POST", "OPTIONS"], says("How it is asked for.")] = "GET"
    interval: Annotated[Duration, says("Time between two checks of one backend.")] = 10.0
    timeout: Annotated[Duration, says("How long an answer may take.")] = 3.0
    expected_status: Annotated[
        tuple[Annotated[int, Meta(ge=100, le=599)], ...], says("The statuses that count as healthy.")
    ] = (200,)
    healthy_threshold: Annotated[Count, says("Good checks in a row that bring a backend back.")] = 2
    unhealthy_threshold: Annotated[Count, says("Bad checks in a row that take it out.")] = 3


class Retry(Section, frozen=True, kw_only=True):
    """Further attempts, only ever before the first byte went to the client.

    A connect failure, and a reused connection that died before any answer byte, move to
    another backend even without this section: nothing of the request can have run there.
    """

    enabled: Annotated[bool, says("Try again; on when the section is written.")] = True
    max_retries: Annotated[Annotated[int, Meta(ge=0, le=20)], says("Attempts after the first.")] = 3
    initial_wait: Annotated[DurationOrZero, says("Wait before the second attempt at the same backend.")] = 1.0
    max_wait: Annotated[Duration, says("The longest wait; a longer Retry-After is not waited for.")] = 10.0
    multiplier: Annotated[Annotated[float, Meta(ge=1)], says("What each wait is multiplied with.")] = 2.0
    retry_on: Annotated[
        tuple[Annotated[int, Meta(ge=400, le=599)] | RetryCause, ...],
        says(
            "What is tried again: statuses, `5xx`, `first_byte_timeout`, `no_answer` (the connection ended "
            "before the answer began), `unresponsive` (the server answers nobody any more); it may run twice."
        ),
    ] = (429, 502, 503, 504)
    budget: Annotated[
        Share, says("Retries may be at most this share of the requests of the last minutes.")
    ] = 0.2


class Breaker(Section, frozen=True, kw_only=True):
    """Takes a backend out after failures of real requests, and lets it back in gently."""

    enabled: Annotated[bool, says("Watch the requests.")] = True
    failures: Annotated[Count, says("Failures in a row that take a backend out; a client's 4xx is none.")] = 5
    error_rate: Annotated[Share, says("Or this share of failures within the window.")] = 0.5
    min_requests: Annotated[Count, says("Requests in the window before its rate counts.")] = 20
    window: Annotated[Duration, says("How far the rate looks back.")] = 30.0
    open_for: Annotated[Duration, says("How long the backend is left alone before it is tried again.")] = 10.0
    probes: Annotated[Count, says("Requests let through while it is being tried.")] = 1
    slow_start: Annotated[DurationOrZero, says("How long its share grows back after that.")] = 10.0


class Queue(Section, frozen=True, kw_only=True):
    """Waiting instead of refusing when every backend of a pool is at max_in_flight."""

    enabled: Annotated[bool, says("Let requests wait; on when the section is written.")] = True
    max_waiting: Annotated[Count, says("Requests that may wait; one more gets 503 with Retry-After.")] = 100
    max_wait: Annotated[Duration, says("How long one may wait before it gets 503.")] = 60.0


class Affinity(Section, frozen=True, kw_only=True):
    """Keeps a session at its backend, whose prefix cache knows it."""

    enabled: Annotated[bool, says("Keep sessions together.")] = True
    headers: Annotated[tuple[str, ...], says("Headers that name the session, first one wins.")] = (
        "x-session-affinity",
        "x-session-id",
        "x-claude-code-session-id",
        "session-id",
        "session_id",
    )
    bound: Annotated[
        Annotated[float, Meta(ge=1, le=10)],
        says("A backend above this multiple of the mean load is passed over."),
    ] = 1.25


class Hedge(Section, frozen=True, kw_only=True):
    """A second attempt elsewhere while the first is still silent; the slower one is closed."""

    enabled: Annotated[bool, says("Hedge; on when the section is written. The request may run twice.")] = True
    after: Annotated[Duration, says("Silence after which the second attempt starts.")] = 10.0
    budget: Annotated[Share, says("At most this share of requests is hedged.")] = 0.05


class Pool(Section, frozen=True, kw_only=True):
    """Backends that serve the same models. What is not said here comes from routing and health_check."""

    backends: Annotated[tuple[Backend, ...], says("Its upstream addresses.")] = ()
    load_balance: Annotated[str, choice("load_balance", "As in routing.")] = "least_connections"
    timeouts: Annotated[Timeouts, says("As in routing.")] = Timeouts()
    retry: Annotated[Retry, says("As in routing.")] = Retry(enabled=False)
    breaker: Annotated[Breaker, says("As in routing.")] = Breaker()
    queue: Annotated[Queue, says("As in routing.")] = Queue(enabled=False)
    affinity: Annotated[Affinity, says("As in routing.")] = Affinity()
    hedge: Annotated[Hedge, says("As in routing.")] = Hedge(enabled=False)
    health_check: Annotated[HealthCheck, says("As the top-level section.")] = HealthCheck(enabled=False)


class Model(Section, frozen=True, kw_only=True):
    """A name that clients may ask for."""

    id: Annotated[Annotated[str, Meta(min_length=1)], says("What clients write in `model`.")]
    name: Annotated[str, says("For people, in /v1/models.")] = ""
    description: Annotated[str, says("For people, in /v1/models.")] = ""
    owned_by: Annotated[str, says("In /v1/models.")] = "llmproxy"
    pool: Annotated[str, says("Who serves it; default routing.default_pool.")] = ""
    upstream_model: Annotated[str, says("What the upstream calls it; default the same.")] = ""
    aliases: Annotated[tuple[str, ...], says("Further names for it.")] = ()
    context_length: Annotated[Count | None, says("Tokens of prompt and answer together.")] = None
    max_output: Annotated[Count | None, says("Tokens of an answer.")] = None
    tools: Annotated[bool | None, says("Whether it can call tools, in /v1/models.")] = None
    reasoning: Annotated[bool | None, says("Whether it thinks, in /v1/models.")] = None
    adapters: Annotated[
        tuple[Adapter, ...], says("Rewrites, in this order; none leaves every byte as it is.")
    ] = ()
    fallback: Annotated[
        tuple[str, ...], says("Models to try, in this order, when its own pool cannot answer.")
    ] = ()
    ask_usage: Annotated[
        bool, says("Ask the upstream for a stream's usage, and hide it from clients that did not ask.")
    ] = False
    sse_keep_alive: Annotated[
        Duration | None,
        says(
            "After so much silence a stream gets a comment line, so that no client gives up; where the "
            "upstream has not answered yet, it begins with one."
        ),
    ] = None
    timeouts: Annotated[ModelTimeouts, says("Its time-outs, over those of its pool.")] = ModelTimeouts()


class Fallback(Section, frozen=True, kw_only=True):
    """Pools to try when a model's own cannot answer."""

    pools: Annotated[tuple[str, ...], says("The pools, in this order.")]
    models: Annotated[tuple[str, ...], says("The models meant, `*` as wildcard.")] = ("*",)


class Routing(Section, frozen=True, kw_only=True):
    """How requests find a backend; every pool starts from this."""

    enabled: Annotated[bool | None, no_op("Routing is always on.")] = None
    default_pool: Annotated[
        str, says("Who serves unlisted models and requests without one; empty: unlisted models are unknown.")
    ] = "default"
    load_balance: Annotated[str, choice("load_balance", "How a backend is picked.")] = "least_connections"
    timeout: Annotated[
        Duration | None, says("The longest silence of an upstream (timeouts.first_byte and idle).")
    ] = None
    connect_timeout: Annotated[Duration | None, says("Short for timeouts.connect.")] = None
    timeouts: Annotated[Timeouts, says("How long an upstream may be silent.")] = Timeouts()
    retry: Annotated[Retry, says("Further attempts.")] = Retry(enabled=False)
    breaker: Annotated[Breaker, says("Backends that fail are taken out.")] = Breaker()
    queue: Annotated[Queue, says("Waiting instead of refusing.")] = Queue(enabled=False)
    affinity: Annotated[Affinity, says("Sessions stay at their backend.")] = Affinity()
    hedge: Annotated[Hedge, says("A second attempt while the first is silent.")] = Hedge(enabled=False)
    fallback: Annotated[tuple[Fallback, ...], says("Pools to try when a model's own cannot answer.")] = ()


class SourceBase(Section, frozen=True, kw_only=True, tag_field="type"):
    """What every source of backends has."""

    name: Annotated[str, says("How logs call it; default its type.")] = ""
    enabled: Annotated[bool, says("Switches this source on.")] = True
    pool: Annotated[str, says("The pool its backends join.")] = "default"
    interval: Annotated[Duration | None, says("Time between two looks; default discovery.interval.")] = None
    timeout: Annotated[Duration, says("How long an answer may take.")] = 10.0


class StaticSource(SourceBase, frozen=True, kw_only=True, tag="static"):
    """A list, to be merged with other sources."""

    backends: Annotated[tuple[Backend, ...], says("The backends.")] = ()


class DnsSource(SourceBase, frozen=True, kw_only=True, tag="dns"):
    """A, AAAA or SRV records."""

    host: Annotated[str, says("The name to resolve; one that begins with `_` is asked for SRV.")]
    port: Annotated[Annotated[int, Meta(ge=1, le=65535)], says("The port, for A and AAAA.")] = 8000
    scheme: Annotated[Literal["http", "https"], says("How the backends are spoken to.")] = "http"


class AskedSource(SourceBase, frozen=True, kw_only=True):
    """One that is asked over HTTP."""

    proxy: Annotated[str, confidential("Outbound proxy to it, as a backend's.")] = ""


class HttpSource(AskedSource, frozen=True, kw_only=True, tag="http"):
    """A JSON list of backends from a URL."""

    url: Annotated[str, says("Where the list is.")]
    method: Annotated[Literal["GET", "POST"], says("How it is asked for.")] = "GET"
    headers: Annotated[dict[str, str], confidential("Headers to send along.")] = field(default_factory=dict)


class ConsulSource(AskedSource, frozen=True, kw_only=True, tag="consul"):
    """Healthy instances of a Consul service."""

    service: Annotated[str, says("The service.")]
    addr: Annotated[str, says("Consul's address.")] = "127.0.0.1:8500"
    tag: Annotated[str, says("Only instances with this tag.")] = ""
    token: Annotated[str, confidential("The ACL token.")] = ""


class KubernetesSource(AskedSource, frozen=True, kw_only=True, tag="kubernetes"):
    """The endpoints of a Kubernetes service."""

    service: Annotated[str, says("The service; or give label_selector.")] = ""
    namespace: Annotated[str, says("Its namespace.")] = "default"
    port: Annotated[Annotated[int, Meta(ge=1, le=65535)], says("The port to use.")] = 80
    label_selector: Annotated[str, says("Picks endpoints by label.")] = ""


class EtcdSource(AskedSource, frozen=True, kw_only=True, tag="etcd"):
    """Keys below a prefix, by etcd's HTTP gateway."""

    endpoints: Annotated[tuple[str, ...], says("etcd's addresses.")]
    prefix: Annotated[str, says("The prefix; each value is a backend as JSON, or its URL.")] = (
        "/llmproxy/backends/"
    )
    username: Annotated[str, says("Who asks.")] = ""
    password: Annotated[str, confidential("With which password.")] = ""


class DatabaseSource(SourceBase, frozen=True, kw_only=True, tag="database"):
    """Rows of a table."""

    storage: Annotated[str, says("Which of storage.databases to ask.")] = "default"
    table: Annotated[str, says("The table.")] = "services"
    fields: Annotated[dict[str, str], says("Which column holds name, url, weight and status.")] = field(
        default_factory=dict
    )


Source = StaticSource | DnsSource | HttpSource | ConsulSource | KubernetesSource | EtcdSource | DatabaseSource


class Discovery(Section, frozen=True, kw_only=True):
    """Backends that come and go."""

    enabled: Annotated[bool, says("Look for backends; on when the section is written.")] = True
    mode: Annotated[
        Literal["merge", "first"], says("Join what all sources say, or take the first that answers.")
    ] = "merge"
    interval: Annotated[Duration, says("Time between two looks.")] = 30.0
    sources: Annotated[tuple[Source, ...], says("Where to look.")] = ()
