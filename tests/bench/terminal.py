"""What a run says on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.bench.grid_table import grid_rows, has_cells, summary, table
from tests.bench.results import COSTS_ON_TOP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.results import BenchmarkResult, CaseResult, Figures


def say(message: str) -> None:
    """Tell the user; standard output belongs to the results."""
    print(message, file=sys.stderr, flush=True)


def say_lines(lines: Iterable[str]) -> None:
    """Tell the user several lines, indented."""
    for line in lines:
        say(f"  {line}")


def show(result: BenchmarkResult) -> None:
    """Tell what became of every case; the cells of a grid the worst first."""
    document = result.document()
    if has_cells(document):
        rows = grid_rows(document)
        say_lines([*table(rows), *summary(rows)])
    else:
        say_lines(f"{case.label:20} {case_text(case)}" for case in result.cases)
    if result.baseline_redirected_share is not None:
        shares = f"on {result.redirected_share:.0%}, {result.against} {result.baseline_redirected_share:.0%}"
        say(f"  redirected: {shares}")


def case_text(case: CaseResult) -> str:
    """Return the ratios of a case, or what it measured where there is nothing to compare with."""
    compared = [f"{key} x{value:.2f}" for key, value in case.ratio.items() if key not in COSTS_ON_TOP] + [
        f"{key} {case.baseline[key]:.0f} -> {case.on[key]:.0f} ({value:+.0f})"
        for key, value in case.difference.items()
    ]
    return "  ".join(compared) or figures_text(case.on)


def figures_text(figures: Figures) -> str:
    """Return figures that have nothing to be compared with."""
    return "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
