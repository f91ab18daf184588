"""Two runs of a grid side by side, such as before and after a change of the accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.cells import CONDITIONS
from tests.bench.grid_table import MARK, GridRow, grid_rows, summary
from tests.bench.heat_map import ASPECTS, Panel, Picture, draw
from tests.bench.page import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class NotComparableError(ValueError):
    """Two results have nothing to be compared by."""


@dataclass(frozen=True)
class ComparedRow:
    """One cell in both runs."""

    before: GridRow
    after: GridRow


def compared_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ComparedRow]:
    """Return the cells that both results have, those that are worst after first.

    Raises NotComparableError when they are against different things or have no cell in common, and
    ValueError when one is not the result of a grid.
    """
    if before["against"] != after["against"]:
        raise NotComparableError(
            f"one run is against {before['against']}, the other against {after['against']}"
        )
    earlier = {row.cell: row for row in grid_rows(before)}
    rows = [ComparedRow(earlier[row.cell], row) for row in grid_rows(after) if row.cell in earlier]
    if not rows:
        raise NotComparableError("the two results have no cell in common")
    return rows


def compared_table(rows: Sequence[ComparedRow]) -> list[str]:
    """Return the lines of a table for the terminal, the sums of both runs at its end."""
    lines = [f"{'cell':27} {'throughput':18}  {'CPU per unit':18}"]
    lines += [
        f"{row.after.cell.label:27}"
        f" {_number(row.before.throughput.ratio, row.before.is_slower)} ->"
        f" {_number(row.after.throughput.ratio, row.after.is_slower)} "
        f" {_number(row.before.cost.ratio, row.before.is_costlier)} ->"
        f" {_number(row.after.cost.ratio, row.after.is_costlier)}"
        for row in rows
    ]
    return [line.rstrip() for line in [*lines, *compared_summary(rows)]]


def _number(ratio: float, is_beyond: bool) -> str:
    return f"x{ratio:.2f}{MARK if is_beyond else ' '}"


def compared_summary(rows: Sequence[ComparedRow]) -> list[str]:
    """Return how many cells are beyond the limits in either run, of those that both have."""
    before, after = summary([row.before for row in rows]), summary([row.after for row in rows])
    return [*(f"before: {line}" for line in before), *(f"after:  {line}" for line in after)]


def write_comparison(directory: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> Path:
    """Write the page of two results side by side; return its path. Raises as compared_rows does."""
    rows = compared_rows(before, after)
    values = {
        "before": before,
        "after": after,
        "rows": rows,
        "summary": compared_summary(rows),
        "pictures": _pictures(rows),
    }
    page = directory / f"{after['name']}-comparison.html"
    page.write_text(render("comparison.html", values), encoding="utf-8")
    return page


def _pictures(rows: Sequence[ComparedRow]) -> list[Picture]:
    conditions = [found for found in CONDITIONS if any(row.after.cell.condition == found for row in rows)]
    return [
        draw(
            aspect,
            (
                Panel(f"{condition}, before", condition, [row.before for row in rows]),
                Panel(f"{condition}, after", condition, [row.after for row in rows]),
            ),
        )
        for aspect in ASPECTS
        for condition in conditions
    ]
