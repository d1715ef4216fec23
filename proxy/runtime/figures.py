"""Figures of one process or of several, as one page for Prometheus.

A worker that is asked for the figures asks the others for theirs: any worker
answers for all. Counters and most gauges are added up; where a sum means
nothing (a lag, a state) the worst of them counts.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import orjson

from proxy.metrics import Merge, Metrics

if TYPE_CHECKING:
    from prometheus_client import Metric

_Labels = tuple[tuple[str, str], ...]

MERGES: Mapping[Merge, Callable[[float, float], float]] = {
    "sum": lambda one, other: one + other,
    "max": max,
    "min": min,
}


def snapshot(metrics: Metrics) -> bytes:
    """What `merged` takes from each process."""
    return orjson.dumps(
        [
            (name, about, kind, metrics.merging.get(name, "sum"), samples)
            for name, about, kind, samples in metrics.collect()
        ]
    )


def merged(snapshots: Iterable[bytes]) -> bytes:
    """The page for all of them together. Blocks: what writes it is loaded for the first page, a MiB."""
    from prometheus_client import CollectorRegistry, Metric, generate_latest

    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, _Labels], float]] = {}
    for content in snapshots:
        for name, about, kind, merge, samples in orjson.loads(content):
            families.setdefault(name, Metric(name, about, kind))
            known = values.setdefault(name, {})
            for sample, labels, value in samples:
                key = sample, tuple(map(tuple, labels))
                known[key] = MERGES[merge](known[key], value) if key in known else value
    for name, samples in values.items():
        for (sample, labels), value in samples.items():
            families[name].add_sample(sample, dict(labels), value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families.values()))
    return generate_latest(registry)


class _Collected:
    """What prometheus_client's registry wants to be asked."""

    def __init__(self, families: Iterable["Metric"]) -> None:
        self._families = families

    def collect(self) -> Iterable["Metric"]:
        return self._families
