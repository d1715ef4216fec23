"""Figures of one process or of several, as one page for Prometheus.

A worker that is asked for the figures asks the others for theirs: any worker
answers for all. Counters and most gauges are added up; where a sum means
nothing (a lag, a state) the worst of them counts.
"""

from collections.abc import Callable, Iterable, Mapping

import orjson
from prometheus_client import Metric

from proxy.metrics import Merge, Metrics, exposition

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
            (
                family.name,
                family.documentation,
                family.type,
                metrics.merging.get(family.name, "sum"),
                [(sample.name, list(sample.labels.items()), sample.value) for sample in family.samples],
            )
            for family in metrics.collect()
        ]
    )


def merged(snapshots: Iterable[bytes]) -> bytes:
    """The page for all of them together."""
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
    return exposition(families.values())
