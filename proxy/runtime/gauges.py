"""What is not counted request by request but read from those who know it, at each scrape.

Label values are names from the configuration, never from a request.
"""

from collections.abc import Callable, Iterable, Iterator

from proxy import __version__
from proxy.health.breaker import State
from proxy.limiters.limits import Limits
from proxy.metrics import Metrics
from proxy.runtime.generation import Holder
from proxy.runtime.services import Services
from proxy.sinks.webhook import Webhook
from proxy.stores.cached_keys import CachedStore
from proxy.upstream.endpoint import Endpoint

Row = tuple[tuple[str, ...], float]

BREAKER_STATES = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


def export(services: Services, holder: Holder) -> None:
    """Add them to the services' metrics."""
    metrics = services.metrics
    _upstreams(metrics, services, holder)
    _usage(metrics, services)
    _limits(metrics, services)
    _keys(metrics, holder)
    metrics.gauge(
        "llmproxy_build_info",
        "The version that runs",
        ("version",),
        lambda: [((__version__,), 1.0)],
        merge="max",
    )
    metrics.gauge(
        "llmproxy_config_generation",
        "How often the configuration was taken, the start included",
        (),
        lambda: [((), float(holder.runtime.generation))],
        merge="min",
    )
    metrics.gauge(
        "llmproxy_config_reload_timestamp_seconds",
        "When the configuration that is served was taken",
        (),
        lambda: [((), holder.runtime.made_at)],
        merge="min",
    )


def _upstreams(metrics: Metrics, services: Services, holder: Holder) -> None:
    def each(
        value: Callable[[Endpoint], float], join: Callable[[float, float], float]
    ) -> Callable[[], Iterable[Row]]:
        """By backend; one that stands in several pools is one backend."""

        def read() -> Iterable[Row]:
            found: dict[str, float] = {}
            for pool in holder.runtime.pools.values():
                for endpoint in pool.endpoints:
                    number, name = value(endpoint), endpoint.name
                    found[name] = join(found[name], number) if name in found else number
            return [((name,), number) for name, number in found.items()]

        return read

    labels = ("backend",)
    metrics.gauge(
        "llmproxy_upstream_up",
        "1 unless the checks call it down",
        labels,
        each(lambda endpoint: float(endpoint.is_up), min),
        merge="min",
    )
    metrics.gauge(
        "llmproxy_upstream_in_flight",
        "Attempts under way",
        labels,
        each(lambda endpoint: endpoint.in_flight, lambda one, other: one + other),
    )
    metrics.gauge(
        "llmproxy_upstream_breaker_state",
        "0 closed, 1 half open, 2 open",
        labels,
        each(lambda endpoint: BREAKER_STATES[endpoint.vitals.breaker.state], max),
        merge="max",
    )
    metrics.gauge(
        "llmproxy_upstream_unresponsive",
        "1 while it takes requests and answers nobody",
        labels,
        each(lambda endpoint: float(endpoint.is_unresponsive), max),
        merge="max",
    )
    metrics.gauge(
        "llmproxy_queue_depth",
        "Requests that wait for a place in a pool",
        ("pool",),
        lambda: [
            ((name,), float(live.queue.waiting))
            for name, live in holder.runtime.live.items()
            if live.queue is not None
        ],
    )
    metrics.gauge(
        "llmproxy_upstream_retries",
        "Attempts that followed another, by what that one ended with",
        ("reason",),
        lambda: [((reason,), float(number)) for reason, number in services.retries.items()],
        counter=True,
    )


def _usage(metrics: Metrics, services: Services) -> None:
    sink = ("sink",)

    def couriers(value: str, *, webhooks: bool = False) -> Callable[[], Iterator[Row]]:
        def read() -> Iterator[Row]:
            if services.outbox is not None:
                for name, courier in services.outbox.couriers.items():
                    if not webhooks or isinstance(courier.sink, Webhook):
                        yield (name,), float(getattr(courier.stats, value))

        return read

    def backlog(value: str) -> Callable[[], Iterator[Row]]:
        def read() -> Iterator[Row]:
            if services.outbox is not None:
                for name, stats in services.outbox.backlog.stats.items():
                    yield (name,), float(getattr(stats, value))

        return read

    def outbox(value: Callable[..., float]) -> Callable[[], Iterable[Row]]:
        return lambda: [((), float(value(services.outbox)))] if services.outbox is not None else []

    for name, about, labels, read in (
        ("webhook_success", "Records a webhook took", sink, couriers("delivered", webhooks=True)),
        ("webhook_failure", "Posts a webhook did not take", sink, couriers("failures", webhooks=True)),
        ("usage_delivered", "Records a reporter took", sink, couriers("delivered")),
        ("usage_delivery_failures", "Tries that failed", sink, couriers("failures")),
        ("usage_refused", "Records a reporter refused for good", sink, couriers("refused")),
        ("usage_dropped", "Records given up: no room, or too old", sink, backlog("dropped")),
        ("usage_records", "Records made", (), outbox(lambda box: box.accepted)),
        ("usage_records_lost", "Records that never reached the spool", (), outbox(lambda box: box.dropped)),
        (
            "usage_spool_failures",
            "Failures of the spool's disk",
            (),
            outbox(lambda box: box.backlog.failures),
        ),
    ):
        metrics.gauge(f"llmproxy_{name}", about, labels, read, counter=True)
    metrics.gauge("llmproxy_usage_spool_pending", "Records that wait", sink, backlog("pending"))
    metrics.gauge(
        "llmproxy_usage_spool_oldest_seconds",
        "Age of the oldest record that waits",
        sink,
        backlog("oldest_age"),
        merge="max",
    )
    metrics.gauge(
        "llmproxy_access_lines_dropped",
        "Access lines that found no room, because nobody took the ones before",
        (),
        lambda: [((), float(services.access_lines_dropped))],
        counter=True,
    )


def _single(read: Callable[[], float]) -> Callable[[], Iterable[Row]]:
    return lambda: [((), float(read()))]


def _keys(metrics: Metrics, holder: Holder) -> None:
    def each(value: Callable[[CachedStore], float]) -> Callable[[], Iterable[Row]]:
        def read() -> Iterable[Row]:
            keys = holder.runtime.keys
            return [((one.name,), float(value(one))) for one in keys.asked_sources()] if keys else []

        return read

    labels = ("source",)
    metrics.gauge(
        "llmproxy_key_source_up",
        "1 unless it gives no answer",
        labels,
        each(lambda one: one.is_up),
        merge="min",
    )
    for name, text, value in (
        ("source_outages", "How often it stopped answering", lambda one: one.outages),
        ("lookups", "How often it was asked for a key", lambda one: one.lookups),
        ("debits_lost", "Debits of quotas that it never took", lambda one: one.lost_debits),
    ):
        metrics.gauge(f"llmproxy_key_{name}", text, labels, each(value), counter=True)


def _limits(metrics: Metrics, services: Services) -> None:
    labels, limits = ("scope",), services.limits
    if not isinstance(limits, Limits):
        metrics.gauge(
            "llmproxy_limit_store_up", "1 while Redis answers", (), lambda: [((), float(limits.is_up))]
        )
        for name, text, read in (
            ("store_outages", "How often Redis stopped answering", lambda: limits.outages),
            ("unchecked", "Requests let through without Redis", lambda: limits.unchecked),
            ("turned_away", "Requests refused because Redis gave no answer", lambda: limits.turned_away),
            ("lost", "Charges and slots given back that never reached Redis", lambda: limits.lost),
        ):
            metrics.gauge(f"llmproxy_limit_{name}", text, (), _single(read), counter=True)
        return
    metrics.gauge(
        "llmproxy_limit_slots",
        "Requests running, as each scope counts them",
        labels,
        lambda: [((scope,), float(number)) for scope, number in limits.open_slots().items()],
    )
    metrics.gauge(
        "llmproxy_limit_subjects",
        "Keys, users, models and addresses remembered",
        labels,
        lambda: [((scope,), float(number)) for scope, number in limits.table_sizes().items()],
    )
