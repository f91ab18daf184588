"""Measuring two meshes in interleaved pairs, and comparing them by the ratio of their medians."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.demo.figures import METRICS, Figures, format_ratio
from tests.demo.load import Percentiles, at_percent
from tests.demo.mesh import Mesh, Sample
from tests.demo.workloads import Workload

CURVE_PERCENTAGES = (1, *range(5, 95, 5), *range(95, 99), 99, 99.25, 99.5, 99.75, 99.9)


@dataclass(frozen=True)
class Pair:
    """One run on each of the two meshes, right after each other."""

    off: Sample
    on: Sample

    @property
    def ratio(self) -> Figures:
        """Each figure of `on` as a multiple of that of `off`."""
        return ratio_of(figures_of(self.off), figures_of(self.on))


@dataclass(frozen=True)
class Band:
    """Latency over percentages: the median of the runs, and between which of them it lay (seconds)."""

    percent: float
    middle: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Comparison:
    """The pairs of one workload."""

    pairs: tuple[Pair, ...]

    @property
    def off(self) -> Figures:
        """Medians of the runs on the first mesh."""
        return _medians(pair.off for pair in self.pairs)

    @property
    def on(self) -> Figures:
        """Medians of the runs on the second mesh."""
        return _medians(pair.on for pair in self.pairs)

    @property
    def ratio(self) -> Figures:
        """The ratio of the medians."""
        return ratio_of(self.off, self.on)

    @property
    def errors(self) -> int:
        """Requests that failed, in all runs."""
        return sum(pair.off.load.errors + pair.on.load.errors for pair in self.pairs)

    def curve_off(self) -> tuple[Band, ...]:
        """The latency distribution on the first mesh."""
        return _curve([pair.off.load.percentiles for pair in self.pairs])

    def curve_on(self) -> tuple[Band, ...]:
        """The latency distribution on the second mesh."""
        return _curve([pair.on.load.percentiles for pair in self.pairs])


@dataclass(frozen=True)
class Schedule:
    """How much to measure: rounds of a pair of every workload, each run so many seconds."""

    rounds: int
    seconds: int
    deadline: float = float("inf")
    """The time.monotonic() after which no further round begins; one round is always made."""
    title: str = "round"


def measure(
    off: Mesh,
    on: Mesh,
    workloads: Sequence[Workload],
    schedule: Schedule,
    report: Callable[[str], None],
) -> dict[str, Comparison]:
    """Run every workload on both meshes, round by round, and return the comparisons by workload name.

    A round holds one pair of each workload, and the mesh that goes first changes from round to round,
    so what drifts on the machine meets both meshes and all workloads alike.
    """
    pairs: dict[str, list[Pair]] = {workload.name: [] for workload in workloads}
    last = ""
    for number in _rounds(schedule):
        for workload in workloads:
            title = f"{schedule.title} {number + 1}/{schedule.rounds}, {workload.title}"
            samples = {}
            for mesh in (off, on) if number % 2 == 0 else (on, off):
                report(f"{title}: {mesh.name}{last}")
                mesh.wait_for_empty_pools()
                samples[mesh.name] = workload.run(mesh, schedule.seconds)
            pair = Pair(samples[off.name], samples[on.name])
            pairs[workload.name].append(pair)
            last = f"  (last: {format_ratio(pair.ratio['qps'])})"
    return {name: Comparison(tuple(found)) for name, found in pairs.items()}


def figures_of(sample: Sample) -> Figures:
    """Return the figures of one run."""
    load = sample.load
    return {
        "qps": load.qps,
        "latency_mean": load.latency_mean,
        "latency_p50": load.latency_p50,
        "latency_p99": load.latency_p99,
        "cpu_per_request": sample.cpu_per_request,
    }


def ratio_of(off: Figures, on: Figures) -> Figures:
    """Return each figure of `on` as a multiple of that of `off`."""
    return {name: on[name] / off[name] for name in METRICS}


def _rounds(schedule: Schedule) -> Iterator[int]:
    begun = time.monotonic()
    for number in itertools.count():
        now = time.monotonic()
        expected = (now - begun) / number if number else 0.0
        if number >= schedule.rounds or (number > 0 and now + expected > schedule.deadline):
            return
        yield number


def _medians(samples: Iterable[Sample]) -> Figures:
    figures = [figures_of(sample) for sample in samples]
    return {name: median(item[name] for item in figures) for name in METRICS}


def _curve(distributions: Sequence[Percentiles]) -> tuple[Band, ...]:
    return tuple(_band(percent, distributions) for percent in CURVE_PERCENTAGES)


def _band(percent: float, distributions: Sequence[Percentiles]) -> Band:
    latencies = [at_percent(distribution, percent) for distribution in distributions]
    return Band(percent, median(latencies), min(latencies), max(latencies))
