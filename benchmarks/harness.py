"""Measures two functions side by side and says whether a bar holds.

In: callables, or paired samples in seconds. Out: `Comparison`s, `Row`s of the result table, Markdown.
A bar is a ratio ours / peer; the ratio is the median of the paired ratios, its 95 % interval comes from their order.
"""

import gc
import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

SAMPLE_SECONDS = 3e-3  # long enough for the clock, short enough that both sides meet the same disturbance
WARMUP_ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """Seconds per call of both sides; the i-th samples were taken next to each other."""

    ours_samples: tuple[float, ...]
    peer_samples: tuple[float, ...]

    @property
    def ours(self) -> float:
        """Median seconds per call."""
        return statistics.median(self.ours_samples)

    @property
    def peer(self) -> float:
        """Median seconds per call."""
        return statistics.median(self.peer_samples)

    @property
    def ratios(self) -> list[float]:
        """Paired time ratios ours / peer, in the order measured."""
        return [ours / peer for ours, peer in zip(self.ours_samples, self.peer_samples, strict=True)]


@dataclass(frozen=True)
class Row:
    """One line of the table; a row without a target only informs."""

    name: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    target: float | None = None
    better: str = "lower"

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds: by the ratio, or, for a bar near 1, by the nearer end of its 95 % interval."""
        if self.target is None or self.ratio is None or self.low is None or self.high is None:
            return None
        near_one = 0.9 <= self.target <= 1.1
        if self.better == "lower":
            return (self.low if near_one else self.ratio) <= self.target
        return (self.high if near_one else self.ratio) >= self.target


def compare(
    ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 101, inner: int | None = None
) -> Comparison:
    """Time both in random order per round; `inner` calls make a sample, chosen per side to last about 3 ms if None."""
    torch.set_num_threads(1)
    sides = {"ours": ours, "peer": peer}
    counts = {side: inner or _calibrate(call) for side, call in sides.items()}
    samples: dict[str, list[float]] = {"ours": [], "peer": []}
    order, shuffle = list(sides), random.Random(0).shuffle
    warmup = 0 if inner else WARMUP_ROUNDS
    gc.collect()
    gc.disable()
    try:
        for round_number in range(warmup + rounds):
            shuffle(order)
            for side in order:
                seconds = _sample(sides[side], counts[side])
                if round_number >= warmup:
                    samples[side].append(seconds)
    finally:
        gc.enable()
    return Comparison(tuple(samples["ours"]), tuple(samples["peer"]))


def time_alone(call: Callable[[], object], *, rounds: int = 5) -> float:
    """Median seconds of one call, for stages that have no peer."""
    return statistics.median(_sample(call, 1) for _ in range(rounds))


def latency(name: str, comparison: Comparison, target: float | None) -> Row:
    """Build a row of times per call; lower is better."""
    low, high = median_interval(comparison.ratios)
    ratio = statistics.median(comparison.ratios)
    return Row(name, duration(comparison.ours), duration(comparison.peer), ratio, low, high, target)


def throughput(name: str, comparison: Comparison, target: float | None, *, steps: int) -> Row:
    """Build a row of steps per second, for calls that each take `steps` steps; higher is better."""
    gains = [1 / ratio for ratio in comparison.ratios]
    low, high = median_interval(gains)
    ours, peer = (f"{steps / seconds:,.0f} steps/s" for seconds in (comparison.ours, comparison.peer))
    return Row(name, ours, peer, statistics.median(gains), low, high, target, "higher")


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median by order statistics; under 6 values it is their whole range (less than 95 %)."""
    ordered, n = sorted(values), len(values)
    rank, below = 0, 0.5**n
    while below <= 0.025:  # P(fewer than rank + 1 of n values lie under the true median)
        rank += 1
        below += math.comb(n, rank) * 0.5**n
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[n - 1 - rank]


def duration(seconds: float) -> str:
    """Seconds in the unit a reader expects."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(rows: Iterable[Row]) -> str:
    """Markdown table of the rows."""
    lines = ["| what | ours | peer | ratio | 95 % | target | holds |", "|---|--:|--:|--:|--:|--:|:-:|"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        interval = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        target = "" if row.target is None else f"{'≤' if row.better == 'lower' else '≥'} {row.target:.2f}"
        holds = {None: "", True: "yes", False: "**no**"}[row.holds]
        lines.append(f"| {row.name} | {row.ours} | {row.peer} | {ratio} | {interval} | {target} | {holds} |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, system and the versions that matter, as Markdown."""
    packages = ("torch", "tensordict", "gymnasium", "numpy")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    cores = len(_cpu_lines("processor")) or "unknown"
    return (
        f"- {next(iter(_cpu_lines('model name')), platform.processor() or platform.machine())}, {cores} cores, "
        f"{torch.get_num_threads()} torch thread(s)\n"
        f"- {platform.platform()}\n"
        f"- Python {platform.python_version()}, {versions}"
    )


def _cpu_lines(key: str) -> list[str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def _calibrate(call: Callable[[], object]) -> int:
    count, total = 1, 0.0
    while total < SAMPLE_SECONDS:
        total = _sample(call, count) * count
        count *= 2
    return max(1, round(SAMPLE_SECONDS / _fastest(call, count)))


def _fastest(call: Callable[[], object], count: int) -> float:
    return min(_sample(call, count) for _ in range(3))


def _sample(call: Callable[[], object], inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - start) / inner
