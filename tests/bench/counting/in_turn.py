"""Several arms, each with a fixture of its own, measured in turn: more than off and on."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from tests.bench.model import Case, MeasuredArm
from tests.bench.results import BenchmarkResult, CaseResult, Figures, Machine, Pair
from tests.bench.runner import WARM_UP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

Round = dict[str, Figures]
"""What one run of each arm measured, right after each other."""


@dataclass(frozen=True)
class InTurn(Generic[MeasuredArm]):
    """A comparison of arms with one of them, in each case.

    `reference` names an arm that does nothing but what every arm has to do: what the others take beyond it is
    the director's own, and a figure of its own. `against` names the arm that the remaining ones are compared
    with, one after another; the value of these is what the result adds to the label of their cases.
    """

    name: str
    title: str
    arms: Mapping[str, Callable[[], AbstractContextManager[MeasuredArm]]]
    reference: str
    against: str
    compared: Mapping[str, str]
    cases: tuple[Case[MeasuredArm], ...]
    pairs: int
    seconds: float

    def run(self, pairs: int, seconds: float, report: Callable[[str], None]) -> BenchmarkResult:
        """Measure so many rounds of runs of so many seconds; `report` is told how far it is."""
        machine = Machine(os.uname().release, round(os.getloadavg()[0], 2), os.cpu_count() or 0)
        with contextlib.ExitStack() as resources:
            arms = {name: resources.enter_context(make()) for name, make in self.arms.items()}
            rounds = self._measure(arms, pairs, seconds, report)
        cases = [self._compare(case, arm, rounds[case.label]) for case in self.cases for arm in self.compared]
        return BenchmarkResult(
            name=self.name,
            title=self.title,
            against=self.against,
            machine=machine,
            pairs=pairs,
            seconds=seconds,
            redirected_share=None,
            baseline_redirected_share=None,
            cases=tuple(cases),
            usual_baseline=self.against,
        )

    def _measure(
        self, arms: Mapping[str, MeasuredArm], pairs: int, seconds: float, report: Callable[[str], None]
    ) -> dict[str, list[Round]]:
        """Return the rounds of every case, by its label; the order of the arms changes in between."""
        for case in self.cases:
            _measure_arms(case, arms, arms, WARM_UP_SECONDS)
        rounds: dict[str, list[Round]] = {case.label: [] for case in self.cases}
        for number in range(pairs):
            order = list(arms)[:: 1 if number % 2 == 0 else -1]
            for case in self.cases:
                report(f"{self.name}: round {number + 1} of {pairs}, {case.label}")
                rounds[case.label].append(_measure_arms(case, arms, order, seconds))
        return rounds

    def _compare(self, case: Case[MeasuredArm], arm: str, rounds: Sequence[Round]) -> CaseResult:
        """Return one arm's comparison; the reference's runs stand beside it."""
        own = [with_own_figures(one, self.reference) for one in rounds]
        pairs = tuple(Pair(baseline=one[self.against], on=one[arm]) for one in own)
        beside = {} if self.reference == self.against else {self.reference: _runs(rounds, self.reference)}
        return CaseResult(case.label + self.compared[arm], case.workload, pairs, beside=beside)


def with_own_figures(measured: Round, reference: str) -> Round:
    """Return a round in which each arm but the reference also has what it takes beyond that one."""
    base = measured[reference]["instructions"]
    return {
        arm: {**figures, "director_instructions": figures["instructions"] - base}
        if arm != reference
        else figures
        for arm, figures in measured.items()
    }


def _measure_arms(
    case: Case[MeasuredArm], arms: Mapping[str, MeasuredArm], order: Iterable[str], seconds: float
) -> Round:
    return {name: case.measure(arms[name], seconds) for name in order}


def _runs(rounds: Sequence[Round], arm: str) -> tuple[Figures, ...]:
    return tuple(one[arm] for one in rounds)
