"""What was measured, as tables and curves in `bench/results/`."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

# A run that only tries out the measurements must not take the place of real ones.
RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).resolve().parent.parent / "results")

# One line each; readable in black and white, too.
MARKERS = "osD^vx"


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure against what grows; `bar` is what it has to stay below."""

    x: str
    y: str
    at: Sequence[float]
    series: Mapping[str, Sequence[float]]
    bar: float | None = None
    log_y: bool = False


def write(name: str, lines: Iterable[str]) -> Path:
    """Put a page of results in its place, and on standard output."""
    text = "\n".join([*lines, "", machine(), ""])
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    print(text)
    return path


def machine() -> str:
    """When and where, for the foot of a page."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    today = datetime.now(UTC).date().isoformat()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{today}, {model}, {os.cpu_count()} CPUs, Linux {platform.release()}, {python}."


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first column to the left, figures to the right."""
    rule = "|".join(["---", *(["---:"] * (len(head) - 1))])
    return [f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


def can_draw() -> None:
    """Ends the program where it could not draw, before it measures for minutes."""
    if find_spec("matplotlib") is None:
        raise SystemExit("matplotlib is needed: pip install 'llmproxy[bench]'")


def draw(name: str, title: str, curves: Sequence[Curve]) -> str:
    """Draw curves side by side into a PNG; returns the line that shows it."""
    from matplotlib.figure import Figure  # slow to import: only who draws pays

    figure = Figure(figsize=(4.6 * len(curves), 3.2), dpi=110, layout="constrained")
    figure.suptitle(title)
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        for marker, (label, values) in zip(MARKERS, curve.series.items(), strict=False):
            axes.plot(curve.at, values, marker=marker, label=label)
        if curve.bar is not None:
            axes.axhline(curve.bar, color="0.5", linestyle="--", label=f"at most {curve.bar:g}")
        axes.set_xscale("log")
        axes.set_xticks(curve.at, [f"{at:,g}" for at in curve.at])
        axes.minorticks_off()
        axes.set_xlabel(curve.x)
        axes.set_ylabel(curve.y)
        if curve.log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if len(curve.series) > 1 or curve.bar is not None:
            axes.legend(fontsize="small")
    figure.savefig(RESULTS / f"{name}.png")
    return f"![{title}]({name}.png)"
