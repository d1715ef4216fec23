"""Pools of live endpoints from what the configuration says of them."""

import ssl as tls
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from msgspec.structs import replace

from proxy.balancers import make_balancer
from proxy.balancers.affinity_key import SessionHeaders
from proxy.config import schema_pools as schema
from proxy.health.breaker import BreakerSettings
from proxy.health.hedge import HedgePolicy, HedgeSettings
from proxy.health.retry import RetryPolicy, RetrySettings
from proxy.health.thresholds import ThresholdSettings
from proxy.limiters.queue import Queue
from proxy.upstream.connection import Timeouts
from proxy.upstream.connections import Connections
from proxy.upstream.endpoint import Endpoint, EndpointSpec, Headers, split_url
from proxy.upstream.pool import Pool
from proxy.upstream.prober import CheckSettings
from proxy.upstream.registry import EndpointRegistry, HealthSettings
from proxy.upstream.sentinel import SentinelSettings
from proxy.wire.tunnel import outbound_proxy


@dataclass(frozen=True, slots=True)
class Transport:
    """How to reach an endpoint, as the maker of connections needs it."""

    timeouts: Timeouts
    keep_alive: float
    tls: schema.UpstreamTls
    oauth: schema.OAuth | None = None


@dataclass(frozen=True, slots=True)
class LivePool:
    """A pool, what it was made from, and its claims on endpoints."""

    pool: Pool
    settings: schema.Pool
    health: HealthSettings
    retry: RetryPolicy
    hedge: HedgePolicy
    sessions: SessionHeaders | None = None  # finds a request's session, where the pool keeps them together

    queue: Queue | None = None
    credential_names: tuple[bytes, ...] = ()  # lower-case headers of clients that never reach an upstream

    def waiting_room(self, now: float) -> Queue | None:
        """The queue in front of the pool, as long as all its usable endpoints have a bound.

        It counts whatever runs in the pool. So what still runs where nothing new goes has
        places of its own: else a server that stands still would hold those of the others.
        """
        queue, everybody = self.queue, self.pool.endpoints
        if queue is None:
            return None
        usable = self.pool.usable(now) or everybody
        bounds = [one.max_in_flight for one in usable if one.max_in_flight is not None]
        if len(bounds) < len(usable):
            queue.resize(queue.running + queue.waiting + 1, self.settings.queue.max_waiting, now)
            return None  # and nobody has to wait who came before
        left_over = sum(one.in_flight for one in set(everybody).difference(usable))
        # A second attempt beside a silent one has a place at a server, and none in the queue.
        beside = max(sum(one.in_flight for one in everybody) - queue.running, 0)
        places = max(sum(bounds) + left_over - beside, 1)
        queue.resize(places, self.settings.queue.max_waiting, now)
        return queue

    def replace(self, backends: Iterable[schema.Backend], registry: EndpointRegistry) -> bool:
        """Serve from these from now on; return whether that changes anything. Streams run on."""
        specs = [endpoint_spec(backend, self.credential_names) for backend in backends]
        old = self.pool.endpoints
        if specs == [endpoint.spec for endpoint in old]:
            return False
        self.pool.replace(_claimed(self.pool.name, specs, registry, self.health))
        for endpoint in old:
            registry.release(self.pool.name, endpoint, self.health)
        return True

    def release(self, registry: EndpointRegistry) -> None:
        for endpoint in self.pool.endpoints:
            registry.release(self.pool.name, endpoint, self.health)


def live_pool(
    name: str,
    settings: schema.Pool,
    backends: Iterable[schema.Backend],
    *,
    registry: EndpointRegistry,
    credential_names: Sequence[bytes],
) -> LivePool:
    """Claim these endpoints for the pool; `credential_names` (lower case) never reach an upstream."""
    health = _health(settings)
    specs = [endpoint_spec(backend, credential_names) for backend in backends]
    endpoints = _claimed(name, specs, registry, health)
    chance = Random().random
    sticky = settings.affinity.enabled
    kind, bound = settings.load_balance, settings.affinity.bound if sticky else None
    # Where its sessions are, the pool remembers across a reload.
    balancer = registry.balancer(
        name, (kind, bound), lambda: make_balancer(kind, chance, affinity_bound=bound)
    )
    sessions = SessionHeaders(name.encode() for name in settings.affinity.headers) if sticky else None
    pool = Pool(name, endpoints, balancer, registry.changes)
    queue = registry.queue(name) if settings.queue.enabled else None
    return LivePool(
        pool,
        settings,
        health,
        RetryPolicy(_retry(settings.retry), chance),
        HedgePolicy(_hedge(settings.hedge)),
        sessions,
        queue,
        tuple(credential_names),
    )


def _claimed(
    pool: str, specs: Iterable[EndpointSpec], registry: EndpointRegistry, health: HealthSettings
) -> list[Endpoint]:
    """Claims on all of them, or on none: making one can fail over a certificate."""
    claimed: list[Endpoint] = []
    try:
        for spec in specs:
            claimed.append(registry.claim(pool, spec, health))
    except BaseException:
        for endpoint in claimed:
            registry.release(pool, endpoint, health)
        raise
    return claimed


def _retry(settings: schema.Retry) -> RetrySettings | None:
    if not settings.enabled:
        return None
    return RetrySettings(
        max_retries=settings.max_retries,
        retry_on=frozenset(settings.retry_on),
        initial_wait=settings.initial_wait,
        max_wait=settings.max_wait,
        multiplier=settings.multiplier,
        budget=settings.budget,
    )


def _hedge(settings: schema.Hedge) -> HedgeSettings | None:
    return HedgeSettings(settings.after, settings.budget) if settings.enabled else None


def check_settings(settings: schema.HealthCheck) -> CheckSettings:
    return CheckSettings(
        path=settings.path,
        method=settings.method,
        interval=settings.interval,
        timeout=settings.timeout,
        expected=frozenset(settings.expected_status),
    )


def sentinel_settings(settings: schema.Pool, endpoint: Endpoint) -> SentinelSettings:
    checks, transport = settings.health_check, endpoint.spec.transport
    assert isinstance(transport, Transport)
    return SentinelSettings(transport.timeouts.connect, path=checks.path, method=checks.method)


def workers_share(backends: tuple[schema.Backend, ...], workers: int) -> tuple[schema.Backend, ...]:
    """Each of several worker processes may keep a backend busy with its part only."""
    if workers == 1:
        return backends
    return tuple(
        replace(backend, max_in_flight=max(backend.max_in_flight // workers, 1))
        if backend.max_in_flight is not None
        else backend
        for backend in backends
    )


def endpoint_spec(backend: schema.Backend, credential_names: Sequence[bytes]) -> EndpointSpec:
    scheme, host, port, path = split_url(backend.url)
    limits = backend.timeouts
    return EndpointSpec(
        name=backend.name,
        scheme=scheme,
        host=host,
        port=port,
        base_path=path,
        weight=backend.weight,
        headers=_headers(backend),
        keys=tuple(key.encode() for key in backend.api_keys),
        awaits_token=backend.oauth is not None,
        removed=(*credential_names, *(name.lower().encode() for name in backend.remove_headers)),
        connect_timeout=limits.connect,
        max_in_flight=backend.max_in_flight,
        proxy=outbound_proxy(backend.proxy, backend.tls.ca_file) if backend.proxy else None,
        transport=Transport(
            Timeouts(limits.connect, limits.first_byte, limits.idle, limits.total),
            limits.keep_alive,
            backend.tls,
            backend.oauth,
        ),
    )


def _headers(backend: schema.Backend) -> Headers:
    headers = [
        (name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in backend.headers.items()
    ]
    if backend.api_key:
        headers.append((b"Authorization", b"Bearer " + backend.api_key.encode()))
    return tuple(headers)


def _health(settings: schema.Pool) -> HealthSettings:
    breaker = settings.breaker
    made = None
    if breaker.enabled:
        made = BreakerSettings(
            failures=breaker.failures,
            error_rate=breaker.error_rate,
            min_requests=breaker.min_requests,
            window=breaker.window,
            open_for=breaker.open_for,
            probes=breaker.probes,
        )
    checks = settings.health_check
    thresholds = ThresholdSettings(checks.healthy_threshold, checks.unhealthy_threshold)
    return HealthSettings(made, thresholds, breaker.slow_start)


def connector(make: Callable[..., Connections]) -> Callable[[Endpoint], Connections]:
    """`make` is `Connections` with its watch and loop filled in."""
    # With the system's authorities a context is 0.9 MB and takes 20 ms; those with files of their own
    # are read for each endpoint, because the files may have been renewed.
    shared: dict[bool, tls.SSLContext] = {}

    def context_of(settings: schema.UpstreamTls) -> tls.SSLContext:
        if settings.ca_file or settings.cert_file:
            return client_tls(settings)
        if settings.verify not in shared:
            shared[settings.verify] = client_tls(settings)
        return shared[settings.verify]

    def connect(endpoint: Endpoint) -> Connections:
        spec = endpoint.spec
        transport = spec.transport
        assert isinstance(transport, Transport)
        return make(
            spec.host,
            spec.port,
            ssl=context_of(transport.tls) if spec.scheme == "https" else None,
            server_name=transport.tls.server_name or spec.host,
            proxy=spec.proxy,
            keep_idle=transport.keep_alive,
        )

    return connect


def client_tls(settings: schema.UpstreamTls) -> tls.SSLContext:
    """TLS towards an upstream: the system's authorities unless told otherwise."""
    context = tls.create_default_context(cafile=settings.ca_file or None)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
    return context
