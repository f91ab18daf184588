"""The grid as a table: what each cell gained or lost, the worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SLOWEST = 0.95
"""The throughput, as a multiple of that without the accelerator, below which a cell is slower."""
COSTLIEST = 1.05
"""The processor time for the same work above which a cell is costlier."""
THROUGHPUT_FIGURES = ("qps", "bytes_per_second")
COST_FIGURES = ("cpu_per_request", "cpu_per_byte")
MARK = "<"


@dataclass(frozen=True)
class Change:
    """A figure of the accelerated arm as a multiple of the other's, of medians and of single pairs."""

    ratio: float
    smallest: float
    largest: float

    @property
    def rounded(self) -> float:
        """The ratio as it is shown; limits apply to it, so that what is shown and what is said agree."""
        return round(self.ratio, 2)

    def text(self) -> str:
        """Return ratio and range in a column's width."""
        span = f"({self.smallest:.2f}-{self.largest:.2f})"
        return f"x{self.ratio:.2f} {span:13}"


@dataclass(frozen=True)
class GridRow:
    """What became of one cell."""

    cell: Cell
    throughput: Change
    """Of requests or bytes a second."""
    cost: Change
    """Of processor time for a request or byte."""
    pairs: int

    @property
    def is_slower(self) -> bool:
        return self.throughput.rounded < SLOWEST

    @property
    def is_costlier(self) -> bool:
        return self.cost.rounded > COSTLIEST

    @property
    def is_beyond(self) -> bool:
        """Whether it is beyond either limit."""
        return self.is_slower or self.is_costlier

    @property
    def worst(self) -> float:
        """The worse of the two, as what more is better of."""
        return min(self.throughput.ratio, 1 / self.cost.ratio)


def has_cells(document: Mapping[str, Any]) -> bool:
    """Whether a result is that of a grid."""
    return all("cell" in case for case in document["cases"])


def grid_rows(document: Mapping[str, Any]) -> list[GridRow]:
    """Return the cells of a grid's result, the worst first.

    Raises ValueError when it is the result of something else.
    """
    if not has_cells(document):
        raise ValueError(f"{document['name']}: its cases are not the cells of a grid")
    return sorted((grid_row(case) for case in document["cases"]), key=lambda row: row.worst)


def grid_row(case: Mapping[str, Any]) -> GridRow:
    """Return what became of one cell, from its case in a result."""
    return GridRow(
        Cell(**case["cell"]),
        _change(case, THROUGHPUT_FIGURES),
        _change(case, COST_FIGURES),
        case["pairs"],
    )


def _change(case: Mapping[str, Any], figures: Sequence[str]) -> Change:
    key = next(key for key in figures if key in case["ratio"])
    return Change(case["ratio"][key], *case["ratio_range"][key])


def summary(rows: Sequence[GridRow]) -> tuple[str, str]:
    """Return how many cells are slower, and how many costlier, in a line each."""
    return (
        f"cells under x{SLOWEST}: {sum(row.is_slower for row in rows)} of {len(rows)}",
        f"cells over x{COSTLIEST} in CPU per unit: {sum(row.is_costlier for row in rows)} of {len(rows)}",
    )


def table(rows: Iterable[GridRow]) -> list[str]:
    """Return the lines of a table for the terminal; a mark is at what is beyond the limits."""
    lines = [f"{'cell':27} {'throughput':21} {'CPU per unit':21} pairs"]
    lines += [
        f"{row.cell.label:27} {row.throughput.text()} {MARK if row.is_slower else ' '}"
        f" {row.cost.text()} {MARK if row.is_costlier else ' '} {row.pairs:3}"
        for row in rows
    ]
    return lines
