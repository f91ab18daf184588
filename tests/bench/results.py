"""What a benchmark found: medians over pairs, their ratio, and the document that keeps them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.cells import Cell

FIGURES = (
    "qps",
    "latency_mean",
    "latency_p50",
    "latency_p99",
    "cpu_per_request",
    "bytes_per_second",
    "cpu_per_byte",
    "bpf_ns_per_message",
    "instructions",
    "director_instructions",
)
"""All keys that a measurement may have. Times are in seconds unless the key says otherwise."""

COSTS_ON_TOP = frozenset({"bpf_ns_per_message"})
"""Figures of which the difference tells more than the ratio: both arms hold what measuring costs."""

Figures = dict[str, float]
"""What one run measured, under some of the keys of FIGURES."""


@dataclass(frozen=True)
class Pair:
    """One run of each arm, right after each other."""

    baseline: Mapping[str, float]
    on: Mapping[str, float]


@dataclass(frozen=True)
class CaseResult:
    """The pairs of one case of a benchmark."""

    label: str
    workload: str
    pairs: tuple[Pair, ...]
    cell: Cell | None = None
    beside: Mapping[str, tuple[Figures, ...]] = field(default_factory=dict)
    """Runs of arms that are neither of the two, by the arm's name."""

    @property
    def baseline(self) -> Figures:
        """Medians of the arm that is compared with."""
        return medians(pair.baseline for pair in self.pairs)

    @property
    def on(self) -> Figures:
        """Medians of the accelerated arm."""
        return medians(pair.on for pair in self.pairs)

    @property
    def ratio(self) -> Figures:
        """The ratio of the medians, accelerated to baseline."""
        return ratio_of(self.baseline, self.on)

    @property
    def difference(self) -> Figures:
        """By how much the accelerated arm's median is above the baseline's, of COSTS_ON_TOP."""
        baseline, on = self.baseline, self.on
        return {key: on[key] - baseline[key] for key in common_keys([baseline, on]) if key in COSTS_ON_TOP}

    @property
    def ratio_range(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest ratio within one pair."""
        ratios = [ratio_of(pair.baseline, pair.on) for pair in self.pairs]
        return {
            key: (min(ratio[key] for ratio in ratios), max(ratio[key] for ratio in ratios))
            for key in common_keys(ratios)
        }

    def spread(self, against: str) -> dict[str, Figures]:
        """How far the runs of each arm lie apart: largest minus smallest, as a part of the median."""
        return {
            against: spread_of([pair.baseline for pair in self.pairs]),
            "on": spread_of([pair.on for pair in self.pairs]),
            **{arm: spread_of(list(runs)) for arm, runs in self.beside.items()},
        }

    def document(self, against: str) -> dict[str, Any]:
        """Return the case as JSON."""
        cell = {} if self.cell is None else {"cell": asdict(self.cell)}
        return {
            "label": self.label,
            "workload": self.workload,
            "pairs": len(self.pairs),
            **cell,
            **self.comparison(against),
        }

    def comparison(self, against: str) -> dict[str, Any]:
        """Return what the pairs amount to, as JSON."""
        return {
            "arms": {
                against: self.baseline,
                "on": self.on,
                **{arm: medians(runs) for arm, runs in self.beside.items()},
            },
            "ratio": self.ratio,
            "difference": self.difference,
            "ratio_range": self.ratio_range,
            "spread": self.spread(against),
        }


@dataclass(frozen=True)
class Machine:
    """Where and under what conditions a benchmark ran."""

    kernel: str
    load: float
    """The one-minute load average before the first run; the benchmark's own load comes on top."""
    processors: int


@dataclass(frozen=True)
class BenchmarkResult:
    """A whole benchmark. The first case is the one that its top level figures tell of."""

    name: str
    title: str
    against: str
    machine: Machine
    pairs: int
    """Of every case that was not measured again."""
    seconds: float
    """How long a run took."""
    redirected_share: float | None
    """Of the bytes that passed the accelerator's program, those that it redirected; None if it never does."""
    baseline_redirected_share: float | None
    """The same of the arm compared with; None when that never redirects."""
    cases: tuple[CaseResult, ...]
    usual_baseline: str = "off"
    """What the benchmark is compared with unless asked otherwise."""
    selection: tuple[str, ...] = ()
    """The words that chose some of the benchmark's cells; none: all of them."""

    @property
    def file_name(self) -> str:
        """The name of the file that keeps it; a part of the cells does not replace all of them."""
        part = "-selected" if self.selection else ""
        variant = "" if self.against == self.usual_baseline else f"-against-{self.against}"
        return f"{self.name}{part}{variant}.json"

    def document(self) -> dict[str, Any]:
        """Return the result as JSON, in the form that DESIGN names."""
        headline = self.cases[0]
        return {
            "name": self.name,
            "title": self.title,
            "kernel": self.machine.kernel,
            "load": self.machine.load,
            "processors": self.machine.processors,
            "pairs": self.pairs,
            "seconds": self.seconds,
            "against": self.against,
            "redirected_share": self.redirected_share,
            "baseline_redirected_share": self.baseline_redirected_share,
            "selection": list(self.selection),
            **headline.comparison(self.against),
            "cases": [case.document(self.against) for case in self.cases],
        }


def medians(samples: Iterable[Mapping[str, float]]) -> Figures:
    """Return the median of every figure that all samples have."""
    found = list(samples)
    return {key: median(sample[key] for sample in found) for key in common_keys(found)}


def spread_of(samples: list[Mapping[str, float]] | list[Figures]) -> Figures:
    """Return by how much each figure varies, as a part of its median, of those that all samples have."""
    values = {key: [sample[key] for sample in samples] for key in common_keys(samples)}
    return {
        key: (max(found) - min(found)) / abs(median(found)) for key, found in values.items() if median(found)
    }


def ratio_of(baseline: Mapping[str, float], on: Mapping[str, float]) -> Figures:
    """Return the figures of `on` as multiples of those of `baseline`, of those that both have."""
    return {key: on[key] / baseline[key] for key in common_keys([baseline, on])}


def common_keys(samples: list[Mapping[str, float]] | list[Figures]) -> list[str]:
    """Return the figures that all samples have, in the order of FIGURES."""
    return [key for key in FIGURES if samples and all(key in sample for sample in samples)]
