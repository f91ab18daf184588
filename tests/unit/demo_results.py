"""Made-up results of a demonstration, for the tests of what is shown of them."""

from __future__ import annotations

from tests.demo.load import LoadResult
from tests.demo.measurement import Comparison, Pair
from tests.demo.mesh import Sample
from tests.demo.results import ByteCounts, PlaybookRun, Results, WorkloadResult
from tests.demo.workloads import WORKLOADS

RECAP = "localhost : ok=2 changed=0 unreachable=0 failed=0 skipped=1 rescued=0 ignored=0"


def sample(qps: float = 1000, latency: float = 0.002, *, cpu: float = 1.0, errors: int = 0) -> Sample:
    """Return a run of a second; p50 is the mean, p99 twice that."""
    load = LoadResult(
        requests=round(qps),
        duration=1.0,
        errors=errors,
        latency_mean=latency,
        latency_p50=latency,
        latency_p99=2 * latency,
        percentiles=((1.0, latency / 2), (50.0, latency), (99.0, 2 * latency), (99.9, 4 * latency)),
    )
    return Sample(load, cpu_seconds=cpu)


def comparison(*pairs: tuple[Sample, Sample]) -> Comparison:
    """Return the comparison of these pairs."""
    return Comparison(tuple(Pair(off, on) for off, on in pairs))


def results(*, errors: int = 0, environment: dict[str, str] | None = None) -> Results:
    """Return results in which every workload became a quarter faster."""
    before = comparison((sample(), sample(1010)))
    after = comparison((sample(), sample(1250, 0.0016, errors=errors)), (sample(), sample(1260, 0.0015)))
    return Results(
        started="2026-01-02 03:04 UTC",
        environment=environment or {"Kernel": "6.18.44"},
        run_seconds=2,
        workloads=tuple(WorkloadResult(workload, before, after) for workload in WORKLOADS),
        converge=PlaybookRun("playbooks/site.yml", RECAP.replace("changed=0", "changed=5"), 5, 4.2),
        second_converge=PlaybookRun("playbooks/site.yml", RECAP, 0, 1.1),
        bytes_sent=ByteCounts(redirected=3_000_000, tcp=1_000_000),
    )
