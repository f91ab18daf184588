"""What a benchmark found: medians over pairs, their ratio, and the document that keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIGURES = (
    "qps",
    "latency_mean",
    "latency_p50",
    "latency_p99",
    "cpu_per_request",
    "bytes_per_second",
    "cpu_per_byte",
    "bpf_ns_per_message",
)
"""All keys that a measurement may have. Times are in seconds unless the key says otherwise."""

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
    def ratio_range(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest ratio within one pair."""
        ratios = [ratio_of(pair.baseline, pair.on) for pair in self.pairs]
        return {
            key: (min(ratio[key] for ratio in ratios), max(ratio[key] for ratio in ratios))
            for key in common_keys(ratios)
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
    seconds: float
    """How long a run took."""
    redirected_share: float
    """Of the bytes that passed the accelerator's program, those that it redirected."""
    cases: tuple[CaseResult, ...]

    @property
    def file_name(self) -> str:
        """The name of the file that keeps it."""
        suffix = "" if self.against == "off" else f"-against-{self.against}"
        return f"{self.name}{suffix}.json"

    def document(self) -> dict[str, Any]:
        """Return the result as JSON, in the form that DESIGN names."""
        headline = self.cases[0]
        return {
            "name": self.name,
            "title": self.title,
            "kernel": self.machine.kernel,
            "load": self.machine.load,
            "processors": self.machine.processors,
            "pairs": len(headline.pairs),
            "seconds": self.seconds,
            "against": self.against,
            "redirected_share": self.redirected_share,
            **self._comparison(headline),
            "cases": [
                {"label": case.label, "workload": case.workload, **self._comparison(case)}
                for case in self.cases
            ],
        }

    def _comparison(self, case: CaseResult) -> dict[str, Any]:
        return {
            "arms": {self.against: case.baseline, "on": case.on},
            "ratio": case.ratio,
            "ratio_range": case.ratio_range,
        }


def medians(samples: Iterable[Mapping[str, float]]) -> Figures:
    """Return the median of every figure that all samples have."""
    found = list(samples)
    return {key: median(sample[key] for sample in found) for key in common_keys(found)}


def ratio_of(baseline: Mapping[str, float], on: Mapping[str, float]) -> Figures:
    """Return the figures of `on` as multiples of those of `baseline`, of those that both have."""
    return {key: on[key] / baseline[key] for key in common_keys([baseline, on])}


def common_keys(samples: list[Mapping[str, float]] | list[Figures]) -> list[str]:
    """Return the figures that all samples have, in the order of FIGURES."""
    return [key for key in FIGURES if samples and all(key in sample for sample in samples)]
