"""What a benchmark is: cases, each measured on two arms that are made alike."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Literal, Protocol, Self, TypeVar

from tests.bench.cells import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from tests.bench.cells import Cell
    from tests.bench.results import Figures

Baseline = Literal["off", "classic", "empty"]
"""What the accelerated arm is compared with: plain TCP, or one of the variants of baselines.py."""


class Arm(Protocol):
    """One side of a comparison, with everything it needs running."""

    @property
    def cgroups(self) -> tuple[str, ...]:
        """The cgroups to accelerate in, below the cgroup2 mount."""


ArmKind = TypeVar("ArmKind", bound=Arm)
MeasuredArm = TypeVar("MeasuredArm")
"""Of any kind: what is measured knows it."""


@dataclass(frozen=True)
class Case(Generic[MeasuredArm]):
    """One load; `measure` runs it on an arm for so many seconds."""

    label: str
    workload: str
    measure: Callable[[MeasuredArm, float], Figures]
    beside: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Makes what goes on on the machine while a pair of this case is measured."""
    cell: Cell | None = None
    """The place of this case in a grid."""


@dataclass(frozen=True)
class Benchmark(Generic[ArmKind]):
    """A comparison of two arms that `make_arm` makes alike, of each case in turn.

    The first case is the one that the result's top level tells of.
    """

    name: str
    title: str
    make_arm: Callable[[str], AbstractContextManager[ArmKind]]
    cases: tuple[Case[ArmKind], ...]
    redirects: bool | None = True
    """Whether bytes must be redirected on the accelerated arm, or must not; None: either is right."""
    pairs: int = 7
    seconds: float = 1.0
    again: int = 0
    """How much is measured unless the command line says otherwise; see Schedule."""
    baseline: Baseline = "off"
    """What is compared with unless the command line says otherwise."""

    def has_cells(self) -> bool:
        """Whether the cases form a grid."""
        return all(case.cell is not None for case in self.cases)

    def restricted(self, words: Sequence[str]) -> Self:
        """Return the same with those cases alone whose cells the words name.

        Whether some of them redirect is open then: the accelerator may leave a kind of load to TCP.
        Raises ValueError when they name none, or no cells at all.
        """
        cells = chosen([case.cell for case in self.cases if case.cell is not None], words)
        return replace(self, cases=tuple(case for case in self.cases if case.cell in cells), redirects=None)
