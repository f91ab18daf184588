"""The grid: which cells it has, how they are chosen, judged, sorted, drawn and compared."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import pytest
from jinja2 import UndefinedError

from tests.bench.cells import ALL_CELLS, CONDITIONS, Cell, chosen
from tests.bench.comparison import NotComparableError, compared_rows, compared_table, write_comparison
from tests.bench.competitors import PER_PROCESSOR, busy_loops
from tests.bench.grid import GRID
from tests.bench.grid_table import grid_rows, summary, table
from tests.bench.heat_map import ASPECTS, COST, SHADES, THROUGHPUT, Panel, draw
from tests.bench.model import Benchmark, Case
from tests.bench.page import render
from tests.bench.report import write_report
from tests.bench.results import BenchmarkResult, CaseResult, Machine, Pair
from tests.bench.runner import Schedule, measure_cases
from tests.support.processes import ProcessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.bench.results import Figures

LOSS, SLIGHT_LOSS = SHADES[0], SHADES[2]
EVEN = SHADES[3]
GAIN = SHADES[-1]


def grid_document(ratios: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Return the result of a run: by cell the ratio of throughput and that of processor time."""
    cells = {cell.label: cell for cell in ALL_CELLS}
    return BenchmarkResult(
        name="sockops-grid",
        title="Grid",
        against="off",
        machine=Machine(kernel="6.18.0", load=0.25, processors=2),
        pairs=1,
        seconds=0.5,
        redirected_share=0.5,
        baseline_redirected_share=None,
        cases=tuple(
            CaseResult(label, "load", (_pair(cells[label], *ratio),), cells[label])
            for label, ratio in ratios.items()
        ),
    ).document()


def _pair(cell: Cell, throughput: float, cost: float) -> Pair:
    keys = ("qps", "cpu_per_request") if cell.pattern == "pingpong" else ("bytes_per_second", "cpu_per_byte")
    return Pair(dict.fromkeys(keys, 1.0), dict(zip(keys, (throughput, cost), strict=True)))


def test_the_grid_has_every_combination_once() -> None:
    assert len(ALL_CELLS) == len({cell.label for cell in ALL_CELLS}) == 5 * 3 * 3 * 2
    assert [case.cell for case in GRID.cases] == list(ALL_CELLS)


@pytest.mark.parametrize(
    ("words", "count"),
    [((), 90), (("stream", "busy"), 15), (("stream", "mixed", "64B", "1MB"), 24), (("16KB", "1c"), 6)],
)
def test_words_of_one_kind_are_alternatives_and_of_different_kinds_conditions(
    words: tuple[str, ...], count: int
) -> None:
    cells = chosen(ALL_CELLS, words)

    assert len(cells) == count
    assert all(any(word in cell.words for word in words) for cell in cells if words)


def test_a_word_that_names_no_cell_is_an_error_that_tells_the_others() -> None:
    with pytest.raises(ValueError, match=r"2MB.*64B, 1KB.*8c"):
        chosen(ALL_CELLS, ("busy", "2MB"))


def test_whether_bytes_are_redirected_is_only_checked_of_all_cells() -> None:
    part = GRID.restricted(["stream", "busy", "1c"])

    assert [case.label for case in part.cases] == [
        f"{size} stream 1c busy" for size in ("64B", "1KB", "16KB", "128KB", "1MB")
    ]
    assert part.redirects is None
    assert GRID.redirects is True


def test_the_worst_come_first_by_whichever_of_speed_and_cost_is_worse() -> None:
    rows = grid_rows(
        grid_document(
            {
                "64B pingpong 1c idle": (1.3, 0.7),
                "64B stream 8c busy": (0.9, 0.8),
                "1KB stream 8c busy": (1.0, 2.0),
            }
        )
    )

    assert [row.cell.words[:2] for row in rows] == [("1KB", "stream"), ("64B", "stream"), ("64B", "pingpong")]
    assert [(row.is_slower, row.is_costlier) for row in rows] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert summary(rows) == ("cells under x0.95: 1 of 3", "cells over x1.05 in CPU per unit: 1 of 3")
    assert "64B stream 8c busy          x0.90 (0.90-0.90)   < x0.80" in table(rows)[2]


@dataclass
class FakeArm:
    """An arm whose runs take no time; by cell the throughput of one run after the other."""

    throughput: Mapping[Cell, Iterator[float]]
    cgroups: tuple[str, ...] = ()


def no_arm(label: str) -> contextlib.nullcontext[FakeArm]:
    raise AssertionError(f"arm {label}: the test has made its own")


def fake_case(cell: Cell) -> Case[FakeArm]:
    def measure(arm: FakeArm, _seconds: float) -> Figures:
        return {"bytes_per_second": next(arm.throughput[cell]), "cpu_per_byte": 1.0}

    return Case(cell.label, "load", measure, cell=cell)


@pytest.mark.parametrize(("again", "pairs", "ratio"), [(5, 5, 1.02), (0, 3, 0.5)])
def test_cells_beyond_a_limit_are_measured_again_and_the_second_measurement_counts(
    again: int, pairs: int, ratio: float
) -> None:
    good, unlucky = ALL_CELLS[:2]
    first_runs = [0.5] * (1 + 3)  # one is not counted
    off = FakeArm({good: repeat(1.0), unlucky: repeat(1.0)})
    on = FakeArm({good: repeat(1.0), unlucky: chain(first_runs, repeat(1.02))})
    benchmark = Benchmark("fake", "Fake", no_arm, (fake_case(good), fake_case(unlucky)))

    cases = measure_cases(benchmark, Schedule(3, 0.1, "off", again), (off, on), lambda _message: None)

    assert (len(cases[good.label].pairs), len(cases[unlucky.label].pairs)) == (3, pairs)
    assert cases[unlucky.label].ratio["bytes_per_second"] == ratio


def test_a_limit_applies_to_the_number_that_is_shown() -> None:
    shown_095, shown_094 = grid_rows(
        grid_document({"64B mixed 1c idle": (0.9451, 1.0), "1KB mixed 1c idle": (0.9449, 1.0)})
    )[::-1]

    assert not shown_095.is_slower
    assert shown_094.is_slower


@pytest.mark.parametrize(
    ("ratio", "throughput", "cost"),
    [(0.5, LOSS, GAIN), (0.94, SLIGHT_LOSS, SHADES[4]), (1.0, EVEN, EVEN), (1.06, SHADES[4], SLIGHT_LOSS)],
)
def test_colours_know_which_way_is_better(ratio: float, throughput: object, cost: object) -> None:
    assert THROUGHPUT.shade(ratio) == throughput
    assert COST.shade(ratio) == cost


def test_legend_says_what_the_colours_stand_for() -> None:
    assert [text for text, _ in THROUGHPUT.legend()] == [
        *("under ×0.67", "×0.67-0.80", "×0.80-0.95", "×0.95-1.05"),
        *("×1.05-1.25", "×1.25-1.50", "over ×1.50"),
    ]
    assert [text for text, _ in COST.legend()][:: len(SHADES) - 1] == ["over ×1.49", "under ×0.67"]


def test_picture_outlines_what_is_beyond_a_limit_and_overlaps_nowhere() -> None:
    ratios = {cell.label: (0.5, 0.5) if cell.size == 64 else (1.0, 1.0) for cell in ALL_CELLS}
    rows = grid_rows(grid_document(ratios))
    panels = [Panel(condition, condition, rows) for condition in CONDITIONS]

    throughput, cost = (draw(aspect, panels) for aspect in ASPECTS)

    assert len({(tile.x, tile.y) for tile in throughput.tiles}) == len(throughput.tiles) == 90
    assert all(tile.x + throughput.tile_width <= throughput.width for tile in throughput.tiles)
    assert sum(tile.outlined for tile in throughput.tiles) == 18
    assert not any(tile.outlined for tile in cost.tiles)


def test_page_shows_the_grid_as_standalone_pictures(tmp_path: Path) -> None:
    document = grid_document({"64B stream 8c busy": (0.61, 1.7), "1MB mixed 64c idle": (1.4, 0.8)})
    (tmp_path / "sockops-grid.json").write_text(json.dumps(document), encoding="utf-8")

    page = write_report(tmp_path, []).read_text(encoding="utf-8")

    assert "cells under x0.95: 1 of 2" in page
    pictures = [part.partition("</svg>")[0] for part in page.split("<svg")[1:]]
    for picture, numbers in zip(pictures, ({"0.61", "1.40"}, {"1.70", "0.80"}), strict=True):
        assert all(f">{number}</text>" in picture for number in numbers)
    assert "http" not in page


def test_comparison_holds_the_cells_that_both_runs_have(tmp_path: Path) -> None:
    before = grid_document({"64B stream 8c busy": (0.6, 1.7), "64B stream 1c busy": (0.7, 1.0)})
    after = grid_document({"64B stream 8c busy": (1.01, 1.0), "1MB mixed 64c idle": (1.4, 0.8)})

    rows = compared_rows(before, after)
    page = write_comparison(tmp_path, before, after).read_text(encoding="utf-8")

    assert [(row.before.throughput.ratio, row.after.throughput.ratio) for row in rows] == [(0.6, 1.01)]
    assert "x0.60< -> x1.01   x1.70< -> x1.00" in compared_table(rows)[1]
    assert compared_table(rows)[-2:] == [
        "after:  cells under x0.95: 0 of 1",
        "after:  cells over x1.05 in CPU per unit: 0 of 1",
    ]
    assert page.count("<svg") == len(ASPECTS)
    assert "1MB mixed" not in page


def test_runs_against_different_things_are_not_compared() -> None:
    off = grid_document({"64B stream 8c busy": (0.6, 1.7)})
    classic = {**off, "against": "classic"}

    with pytest.raises(NotComparableError, match="off"):
        compared_rows(off, classic)


def test_a_page_lacks_no_value() -> None:
    with pytest.raises(UndefinedError, match="undefined"):
        render("comparison.html", {})


def test_competitors_run_meanwhile_and_no_longer() -> None:
    with busy_loops() as loops:
        assert len(loops) >= PER_PROCESSOR
        assert all(loop.is_running() for loop in loops)
    assert not any(loop.is_running() for loop in loops)


def test_a_competitor_that_did_not_last_is_an_error() -> None:
    with pytest.raises(ProcessError, match="keep a processor busy"), busy_loops() as loops:
        loops[0].terminate()
