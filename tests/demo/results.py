"""Everything a demonstration found, and how it is kept as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tests.demo.measurement import Band, Comparison
from tests.demo.workloads import Workload


@dataclass(frozen=True)
class WorkloadResult:
    """The pairs of one workload: before, when both meshes were the kernel's, and after the converge."""

    workload: Workload
    before: Comparison
    after: Comparison


@dataclass(frozen=True)
class PlaybookRun:
    """A run of ansible-playbook to its good end."""

    playbook: str
    recap: str
    changed: int
    seconds: float


@dataclass(frozen=True)
class ByteCounts:
    """The bytes that the opted-in cgroups sent: handed to the receiving socket, or through TCP."""

    redirected: int
    tcp: int

    @property
    def share(self) -> float:
        """The redirected part of all, 0 to 1."""
        total = self.redirected + self.tcp
        return self.redirected / total if total else 0.0

    def __sub__(self, earlier: ByteCounts) -> ByteCounts:
        return ByteCounts(self.redirected - earlier.redirected, self.tcp - earlier.tcp)


@dataclass(frozen=True)
class Results:
    """What one demonstration found."""

    started: str
    environment: dict[str, str]
    run_seconds: int
    workloads: tuple[WorkloadResult, ...]
    converge: PlaybookRun
    second_converge: PlaybookRun
    bytes_sent: ByteCounts

    @property
    def errors(self) -> int:
        """Requests that failed in any run."""
        return sum(result.before.errors + result.after.errors for result in self.workloads)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values; times in seconds."""
        return {
            "started": self.started,
            "environment": self.environment,
            "run_seconds": self.run_seconds,
            "converge": asdict(self.converge),
            "second_converge": asdict(self.second_converge),
            "bytes_sent": {**asdict(self.bytes_sent), "share": self.bytes_sent.share},
            "errors": self.errors,
            "workloads": [_workload_as_json(result) for result in self.workloads],
        }


def _workload_as_json(result: WorkloadResult) -> dict[str, Any]:
    workload = result.workload
    return {
        "name": workload.name,
        "title": workload.title,
        "path": workload.path,
        "published": [asdict(item) for item in workload.published],
        "before": _comparison_as_json(result.before),
        "after": _comparison_as_json(result.after),
    }


def _comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "pairs": len(comparison.pairs),
        "errors": comparison.errors,
        "arms": {"off": comparison.off, "on": comparison.on},
        "ratio": comparison.ratio,
        "pair_ratios": [pair.ratio for pair in comparison.pairs],
        "latency": {
            "off": _curve_as_json(comparison.curve_off()),
            "on": _curve_as_json(comparison.curve_on()),
        },
    }


def _curve_as_json(curve: tuple[Band, ...]) -> list[dict[str, float]]:
    return [asdict(band) for band in curve]
