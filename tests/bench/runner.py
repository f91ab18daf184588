"""Runs benchmarks: both arms up, then pair after pair, the arm that goes first changing."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tests.bench.classic import classic
from tests.bench.results import BenchmarkResult, CaseResult, Machine, Pair
from tests.support.accelerator import accelerated

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.bench.benchmarks import Arm, Benchmark, Case

WARM_UP_SECONDS = 0.2

Baseline = Literal["off", "classic"]


@dataclass(frozen=True)
class Schedule:
    """How much to measure, and what to compare with."""

    pairs: int
    seconds: float
    against: Baseline


class NotAsPromisedError(RuntimeError):
    """Bytes were redirected that should not have been, or the other way round."""


def run_benchmark(
    benchmark: Benchmark[Any], schedule: Schedule, report: Callable[[str], None]
) -> BenchmarkResult:
    """Measure one benchmark.

    Raises NotAsPromisedError when the accelerator did not do what the benchmark is about; what it
    measured then would be something else.
    """
    machine = Machine(os.uname().release, round(os.getloadavg()[0], 2), os.cpu_count() or 0)
    with contextlib.ExitStack() as resources:
        baseline = resources.enter_context(benchmark.make_arm(f"{schedule.against}"))
        on = resources.enter_context(benchmark.make_arm("on"))
        if schedule.against == "classic":
            resources.enter_context(classic(baseline.cgroups))
        node = resources.enter_context(accelerated(on.cgroups))
        pairs = _measure_pairs(benchmark, schedule, (baseline, on), report)
        redirected_share = _redirected_share(node)
    _check(benchmark, redirected_share)
    cases = tuple(CaseResult(case.label, case.workload, tuple(pairs[case.label])) for case in benchmark.cases)
    return BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        against=schedule.against,
        machine=machine,
        seconds=schedule.seconds,
        redirected_share=redirected_share,
        cases=cases,
    )


def _measure_pairs(
    benchmark: Benchmark[Any],
    schedule: Schedule,
    arms: tuple[Arm, Arm],
    report: Callable[[str], None],
) -> dict[str, list[Pair]]:
    """Run all pairs, a round of one pair a case at a time, so that drift meets all cases alike."""
    pairs: dict[str, list[Pair]] = {case.label: [] for case in benchmark.cases}
    for case in benchmark.cases:
        _measure_pair(case, arms, WARM_UP_SECONDS, baseline_first=True)
    for number in range(schedule.pairs):
        for case in benchmark.cases:
            report(f"{benchmark.name}: pair {number + 1} of {schedule.pairs}, {case.label}")
            pair = _measure_pair(case, arms, schedule.seconds, baseline_first=number % 2 == 0)
            pairs[case.label].append(pair)
    return pairs


def _measure_pair(case: Case[Any], arms: tuple[Arm, Arm], seconds: float, *, baseline_first: bool) -> Pair:
    baseline, on = arms
    if baseline_first:
        return Pair(baseline=case.measure(baseline, seconds), on=case.measure(on, seconds))
    measured = case.measure(on, seconds)
    return Pair(baseline=case.measure(baseline, seconds), on=measured)


def _redirected_share(node: Sockops) -> float:
    counters = node.status()["counters"]
    redirected = int(counters["redirected_bytes"])
    total = redirected + int(counters["tcp_bytes"])
    return redirected / total if total else 0.0


def _check(benchmark: Benchmark[Any], redirected_share: float) -> None:
    if benchmark.redirects == (redirected_share > 0):
        return
    wanted = "some" if benchmark.redirects else "none"
    raise NotAsPromisedError(
        f"{benchmark.name}: {redirected_share:.0%} of the accelerated arm's bytes were redirected, "
        f"where {wanted} should be; `meshaccel status` tells the reasons by counter"
    )
