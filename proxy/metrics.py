"""Counters of the request path, plain numbers until somebody scrapes.

prometheus_client's own counters take a label look-up and a lock per
observation; a dictionary and an addition cost a tenth. Its exposition format is
used, over a registry of our own. Labels come from the configuration or from
short fixed lists, never from a request.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# The Go LLMProxy's buckets, in milliseconds, and on to the length of an agent's turn.
LATENCY_BUCKETS_MS = (10, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000, 120000, 300000, 600000)

# OpenTelemetry's for generative AI (0.01 s doubling), and on to ten minutes.
FIRST_BYTE_BUCKETS = tuple(0.01 * 2**step for step in range(17))

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/models",
)

Gauge = Callable[[], Iterable[tuple[tuple[str, ...], float]]]
Merge = Literal["sum", "max", "min"]


class Histogram:
    """Counts per bucket, their sum, for one set of labels."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        rows, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            rows.append((bound, float(running)))
        return rows


class Series:
    """One (path, stream, backend, status): how many, and how long."""

    __slots__ = ("first_byte", "latency_ms", "requests")

    def __init__(self, buckets_ms: tuple[float, ...]) -> None:
        self.requests = 0
        self.latency_ms = Histogram(buckets_ms)
        self.first_byte = Histogram(FIRST_BYTE_BUCKETS)


Labels = tuple[str, str, str, str]


class Metrics:
    """What the request path counts; `gauge` adds what others know, read at each scrape."""

    def __init__(
        self, buckets_ms: tuple[float, ...] = LATENCY_BUCKETS_MS, constant: dict[str, str] | None = None
    ) -> None:
        self._buckets_ms = buckets_ms
        self._constant = constant or {}
        self._series: dict[Labels, Series] = {}
        self._gauges: list[tuple[str, str, tuple[str, ...], Gauge, bool]] = []
        self.merging: dict[str, Merge] = {}  # how figures of several processes become one, if not as a sum
        self.tokens: defaultdict[tuple[str, str], int] = defaultdict(int)  # (type, estimated) -> tokens
        self.events: defaultdict[tuple[str, str], int] = defaultdict(int)  # (counter's name, label) -> count
        self.in_flight = 0
        self.queue_wait = Histogram(FIRST_BYTE_BUCKETS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(self, labels: Labels, milliseconds: float, first_byte: float | None) -> None:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series(self._buckets_ms)
        series.requests += 1
        series.latency_ms.observe(milliseconds)
        if first_byte is not None:
            series.first_byte.observe(first_byte)

    def count(self, event: str, label: str = "") -> None:
        """Add one to `llmproxy_<event>_total`."""
        self.events[event, label] += 1

    def gauge(
        self,
        name: str,
        about: str,
        labels: tuple[str, ...],
        read: Gauge,
        *,
        counter: bool = False,
        merge: Merge = "sum",
    ) -> None:
        """Export what `read` returns at each scrape: pairs of label values and a number."""
        self._gauges.append((name, about, labels, read, counter))
        if merge != "sum":
            self.merging[name] = merge

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield from self._requests()
        tokens = CounterMetricFamily(
            "llmproxy_usage_tokens", "Tokens by type", labels=self._names("type", "estimated")
        )
        for (kind, estimated), amount in self.tokens.items():
            tokens.add_metric(self._values(kind, estimated), amount)
        yield tokens
        waits = HistogramMetricFamily(
            "llmproxy_queue_wait_seconds", "Waiting for a busy pool", labels=self._names()
        )
        waits.add_metric(self._values(), self.queue_wait.buckets(), self.queue_wait.total)
        yield waits
        for event in sorted({name for name, _ in self.events}):
            family = CounterMetricFamily(
                f"llmproxy_{event}", event.replace("_", " "), labels=self._names("kind")
            )
            for (name, label), amount in self.events.items():
                if name == event:
                    family.add_metric(self._values(label), amount)
            yield family
        for name, about, labels, read, is_counter in self._gauges:
            family_of = CounterMetricFamily if is_counter else GaugeMetricFamily
            gauge = family_of(name, about, labels=self._names(*labels))
            for values, number in read():
                gauge.add_metric(self._values(*values), number)
            yield gauge

    def _requests(self) -> Iterator[Metric]:
        names = self._names("path", "stream", "backend", "status")
        requests = CounterMetricFamily("llmproxy_requests", "Requests answered", labels=names)
        latency = HistogramMetricFamily("llmproxy_latency_ms", "Time to the answer's end", labels=names)
        first = HistogramMetricFamily(
            "llmproxy_ttft_seconds", "Time to the answer's first body byte", labels=names
        )
        for labels, series in self._series.items():
            values = self._values(*labels)
            requests.add_metric(values, series.requests)
            latency.add_metric(values, series.latency_ms.buckets(), series.latency_ms.total)
            if any(series.first_byte.counts):
                first.add_metric(values, series.first_byte.buckets(), series.first_byte.total)
        yield requests
        yield latency
        yield first

    def _names(self, *labels: str) -> list[str]:
        return [*labels, *self._constant]

    def _values(self, *values: str) -> list[str]:
        return [*values, *self._constant.values()]


class _Collected:
    """What prometheus_client's registry wants to be asked."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return generate_latest(registry)


def path_label(path: bytes) -> str:
    """A request's path as a label: one of a short list, or `other`."""
    label = _PATH_LABELS.get(path)
    if label is not None:
        return label
    return "/v1/models" if path.startswith(b"/v1/models/") else "other"


_PATH_LABELS = {path.encode(): path for path in PATHS}
