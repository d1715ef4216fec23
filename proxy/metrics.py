"""Counters of the request path, plain numbers until somebody scrapes.

prometheus_client's own counters take a label look-up and a lock per
observation; a dictionary and an addition cost a tenth. So it only writes the page
(see runtime.figures). Labels come from the configuration or from short fixed
lists, never from a request.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

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
Kind = Literal["counter", "gauge", "histogram"]

# A sample's name, its labels with their values, and the number.
Sample = tuple[str, list[tuple[str, str]], float]


class Family(NamedTuple):
    """All samples of one metric, as Prometheus' data model has them."""

    name: str
    about: str
    kind: Kind
    samples: list[Sample]


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

    def collect(self) -> Iterator[Family]:
        """Everything, as it is now."""
        yield from self._requests()
        tokens = [
            (self._labels(type=kind, estimated=estimated), amount)
            for (kind, estimated), amount in self.tokens.items()
        ]
        yield _counter("llmproxy_usage_tokens", "Tokens by type", tokens)
        waits = [(self._labels(), self.queue_wait)]
        yield _histogram("llmproxy_queue_wait_seconds", "Waiting for a busy pool", waits)
        for event in sorted({name for name, _ in self.events}):
            counts = [
                (self._labels(kind=label), amount)
                for (name, label), amount in self.events.items()
                if name == event
            ]
            yield _counter(f"llmproxy_{event}", event.replace("_", " "), counts)
        for name, about, labels, read, is_counter in self._gauges:
            numbers = [
                (self._labels(**dict(zip(labels, values, strict=True))), number) for values, number in read()
            ]
            yield _counter(name, about, numbers) if is_counter else _gauge(name, about, numbers)

    def _requests(self) -> Iterator[Family]:
        known = [
            (self._labels(path=path, stream=stream, backend=backend, status=status), series)
            for (path, stream, backend, status), series in self._series.items()
        ]
        requests = [(labels, series.requests) for labels, series in known]
        latency = [(labels, series.latency_ms) for labels, series in known]
        first = [(labels, series.first_byte) for labels, series in known if any(series.first_byte.counts)]
        yield _counter("llmproxy_requests", "Requests answered", requests)
        yield _histogram("llmproxy_latency_ms", "Time to the answer's end", latency)
        yield _histogram("llmproxy_ttft_seconds", "Time to the answer's first body byte", first)

    def _labels(self, **labels: str) -> list[tuple[str, str]]:
        return [*labels.items(), *self._constant.items()]


def _counter(name: str, about: str, numbers: Iterable[tuple[list[tuple[str, str]], float]]) -> Family:
    name = name.removesuffix("_total")
    return Family(name, about, "counter", [(f"{name}_total", labels, number) for labels, number in numbers])


def _gauge(name: str, about: str, numbers: Iterable[tuple[list[tuple[str, str]], float]]) -> Family:
    return Family(name, about, "gauge", [(name, labels, number) for labels, number in numbers])


def _histogram(name: str, about: str, found: Iterable[tuple[list[tuple[str, str]], Histogram]]) -> Family:
    samples: list[Sample] = []
    for labels, histogram in found:
        buckets = histogram.buckets()
        samples += [(f"{name}_bucket", [*labels, ("le", bound)], count) for bound, count in buckets]
        samples += [(f"{name}_count", labels, buckets[-1][1]), (f"{name}_sum", labels, histogram.total)]
    return Family(name, about, "histogram", samples)


def path_label(path: bytes) -> str:
    """A request's path as a label: one of a short list, or `other`."""
    label = _PATH_LABELS.get(path)
    if label is not None:
        return label
    return "/v1/models" if path.startswith(b"/v1/models/") else "other"


_PATH_LABELS = {path.encode(): path for path in PATHS}
