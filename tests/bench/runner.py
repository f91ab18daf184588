"""Runs benchmarks: both arms up, then pair after pair, the arm that goes first changing."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.bench.baselines import baseline
from tests.bench.grid_table import grid_row
from tests.bench.results import BenchmarkResult, CaseResult, Machine, Pair
from tests.support.accelerator import accelerated

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.bench.model import Arm, Baseline, Benchmark, Case

WARM_UP_SECONDS = 0.2


@dataclass(frozen=True)
class Schedule:
    """How much to measure, what to compare with, and which cells; see the command line."""

    pairs: int
    seconds: float
    against: Baseline
    again: int = 0
    """Pairs of a second measurement of the cells beyond a limit, which then counts alone; 0: none."""
    selection: tuple[str, ...] = ()
    """Words that name the cells of a grid; none: all."""


class NotAsPromisedError(RuntimeError):
    """Bytes were redirected that should not have been, or the other way round."""


def run_benchmark(
    benchmark: Benchmark[Any], schedule: Schedule, report: Callable[[str], None]
) -> BenchmarkResult:
    """Measure one benchmark, or the cells of it that the schedule names.

    `report` is told how far it is. Raises NotAsPromisedError when the accelerator did not do what the
    benchmark is about; what it measured then would be something else.
    """
    if schedule.selection:
        benchmark = benchmark.restricted(schedule.selection)
    machine = Machine(os.uname().release, round(os.getloadavg()[0], 2), os.cpu_count() or 0)
    with contextlib.ExitStack() as resources:
        compared = resources.enter_context(benchmark.make_arm(schedule.against))
        on = resources.enter_context(benchmark.make_arm("on"))
        classic = resources.enter_context(baseline(schedule.against, compared.cgroups))
        node = resources.enter_context(accelerated(on.cgroups))
        cases = measure_cases(benchmark, schedule, (compared, on), report)
        redirected_share = _redirected_share(node)
        baseline_share = classic.redirected_share() if classic else None
    check(benchmark, redirected_share, "on")
    if baseline_share is not None:
        check(benchmark, baseline_share, "classic")
    return BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        against=schedule.against,
        machine=machine,
        pairs=schedule.pairs,
        seconds=schedule.seconds,
        redirected_share=redirected_share,
        baseline_redirected_share=baseline_share,
        cases=tuple(cases[case.label] for case in benchmark.cases),
        usual_baseline=benchmark.baseline,
        selection=schedule.selection,
    )


def measure_cases(
    benchmark: Benchmark[Any],
    schedule: Schedule,
    arms: tuple[Arm, Arm],
    report: Callable[[str], None],
) -> dict[str, CaseResult]:
    """Run all pairs, then those of the second measurement; return the results by label."""
    cases = _measure_pairs(benchmark, schedule, arms, report)
    beyond = tuple(case for case in benchmark.cases if schedule.again and is_beyond(cases[case.label]))
    if not beyond:
        return cases
    second = replace(schedule, pairs=schedule.again)
    return cases | _measure_pairs(replace(benchmark, cases=beyond), second, arms, report)


def is_beyond(case: CaseResult) -> bool:
    """Whether a case is a cell that is beyond a limit."""
    return case.cell is not None and grid_row(case.document("off")).is_beyond


def _measure_pairs(
    benchmark: Benchmark[Any],
    schedule: Schedule,
    arms: tuple[Arm, Arm],
    report: Callable[[str], None],
) -> dict[str, CaseResult]:
    """Run all pairs, a round of one pair a case at a time, so that drift meets all cases alike."""
    pairs: dict[str, list[Pair]] = {case.label: [] for case in benchmark.cases}
    for case in benchmark.cases:
        _measure_pair(case, arms, WARM_UP_SECONDS, baseline_first=True)
    for number in range(schedule.pairs):
        for case in benchmark.cases:
            report(f"{benchmark.name}: pair {number + 1} of {schedule.pairs}, {case.label}")
            with case.beside():
                pair = _measure_pair(case, arms, schedule.seconds, baseline_first=number % 2 == 0)
            pairs[case.label].append(pair)
    return {
        case.label: CaseResult(case.label, case.workload, tuple(pairs[case.label]), case.cell)
        for case in benchmark.cases
    }


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


def check(benchmark: Benchmark[Any], redirected_share: float, arm: str) -> None:
    """Raise NotAsPromisedError when an arm redirected what it should not have, or the other way round."""
    if benchmark.redirects in (None, redirected_share > 0):
        return
    wanted = "some" if benchmark.redirects else "none"
    raise NotAsPromisedError(
        f"{benchmark.name}: {redirected_share:.0%} of the bytes of the arm '{arm}' were redirected, "
        f"where {wanted} should be"
    )
