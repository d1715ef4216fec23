"""The table that `llmproxy bench` prints."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec

from proxy import __version__
from proxy.bench.figures import Figures, Spread
from proxy.clock import wall

# Rounds of the same thing that lie further apart than this were disturbed.
QUIET = 0.25

Value = Callable[[Figures], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One workload: for each round what was found directly and through the gateway."""

    title: str
    is_stream: bool
    rounds: Sequence[tuple[Figures, Figures]]

    @property
    def noise(self) -> float:
        """How far the direct rounds' medians lie apart, as a part of their middle."""
        spread = Spread.of(direct.total_p50 for direct, _ in self.rounds)
        return (spread.high - spread.low) / spread.middle if spread.middle else 0.0


def report(upstream: str, model: str, measured: Sequence[Measured]) -> str:
    lines = [*_head(upstream, model)]
    for one in measured:
        lines += ["", f"{one.title:34}{'direct':>12}{'through':>12}{'added':>12}   {'in rounds':>18}"]
        lines += [*(_stream_rows(one) if one.is_stream else _request_rows(one))]
    return "\n".join([*lines, *_tail(measured)]) + "\n"


def _head(upstream: str, model: str) -> Iterator[str]:
    when = datetime.fromtimestamp(wall()).astimezone()
    loop = "uvloop" if find_spec("uvloop") and os.environ.get("LLMPROXY_LOOP") != "asyncio" else "asyncio"
    load = os.getloadavg()[0]
    yield f"LLMProxy {__version__}, Python {platform.python_version()}, {loop}; {when:%Y-%m-%d %H:%M %Z}"
    yield f"{os.cpu_count()} CPUs, load {load:.1f}, {platform.machine()}, Linux {platform.release()}"
    yield f"upstream: {upstream}, model {model}"
    yield "the gateway: keys, limits, usage records, metrics and access log on, one process"


def _request_rows(one: Measured) -> Iterator[str]:
    yield _row(one, "requests/s", lambda found: found.requests_per_second, digits=0)
    yield _row(one, "latency p50, ms", lambda found: found.total_p50)
    yield _row(one, "latency p99, ms", lambda found: found.total_p99)
    yield _cpu_row(one, "gateway's CPU per request, µs", lambda found: found.cpu_per_request_us, 0)


def _stream_rows(one: Measured) -> Iterator[str]:
    yield _row(one, "tokens/s", lambda found: found.tokens_per_second, digits=0)
    yield _row(one, "first byte p50, ms", lambda found: found.first_p50)
    yield _row(one, "first byte p99, ms", lambda found: found.first_p99)
    yield _row(one, "jitter between chunks p50, ms", lambda found: found.jitter_p50)
    yield _row(one, "jitter between chunks p99, ms", lambda found: found.jitter_p99)
    label = "gateway's CPU per 1000 tokens/s"
    yield _cpu_row(one, label, lambda found: found.cpu_per_1000_tokens, 1, unit=" %")


def _row(one: Measured, label: str, value: Value, *, digits: int = 2) -> str:
    direct = Spread.of(value(found) for found, _ in one.rounds)
    through = Spread.of(value(found) for _, found in one.rounds)
    # Of each round's difference, for both halves of a round met the same machine.
    added = Spread.of(value(found) - value(before) for before, found in one.rounds)
    return (
        f"  {label:32}{direct.middle:>12,.{digits}f}{through.middle:>12,.{digits}f}"
        f"{added.middle:>+12,.{digits}f}   {f'{added.low:+,.{digits}f} … {added.high:+,.{digits}f}':>18}"
    )


def _cpu_row(one: Measured, label: str, value: Value, digits: int, *, unit: str = "") -> str:
    cpu = Spread.of(value(found) for _, found in one.rounds)
    spread = f"{cpu.low:,.{digits}f} … {cpu.high:,.{digits}f}"
    return f"  {label:32}{'':>12}{f'{cpu.middle:,.{digits}f}{unit}':>12}{'':>12}   {spread:>18}"


def _tail(measured: Sequence[Measured]) -> Iterator[str]:
    yield ""
    yield "`added` is the median of each round's own difference; 100 % of CPU is one core."
    if (os.cpu_count() or 1) < 4:
        yield "Engine, gateway and client share these CPUs: requests/s and latencies at 32 say more about"
        yield "the machine than about the gateway. Its CPU time holds."
    noise = max(one.noise for one in measured)
    if noise > QUIET:
        yield f"The direct rounds alone differ by {noise:.0%}: something else was going on. Differences"
        yield "smaller than that say little; run it again when the machine is quiet."
