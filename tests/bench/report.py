"""One page of all results, in one file, without anything from elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.bench.cells import CONDITIONS
from tests.bench.grid_table import grid_rows, has_cells, summary
from tests.bench.heat_map import ASPECTS, Panel, draw
from tests.bench.page import render
from tests.bench.results import COSTS_ON_TOP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PAGE = "index.html"
LARGEST_RATIO = 2.0
"""Where the scale of the charts ends; what is beyond is drawn at the edge."""
EVEN = 0.02
"""What a ratio may be away from 1 without being called a gain or a loss."""


@dataclass(frozen=True)
class Figure:
    """How to show one figure of a measurement."""

    key: str
    title: str
    unit: str
    factor: float
    """From the unit of the measurement to the unit shown."""
    more_is_better: bool

    def shown(self, value: float) -> str:
        """Return a value in the unit of the page, in three or four digits."""
        scaled = value * self.factor
        return f"{scaled:,.0f}" if scaled >= 1000 else f"{scaled:.3g}"

    def judge(self, ratio: float) -> str:
        """Say whether a ratio is a `gain`, a `loss` or about `even`."""
        if round(abs(ratio - 1), 2) <= EVEN:
            return "even"
        return "gain" if (ratio > 1) == self.more_is_better else "loss"


BASELINE_NAMES = {
    "off": "plain TCP",
    "classic": "the classic variant",
    "empty": "a program that does nothing",
}
FIGURES = (
    Figure("qps", "requests", "/s", 1, more_is_better=True),
    Figure("bytes_per_second", "throughput", "MB/s", 1e-6, more_is_better=True),
    Figure("latency_mean", "mean latency", "µs", 1e6, more_is_better=False),
    Figure("latency_p50", "p50 latency", "µs", 1e6, more_is_better=False),
    Figure("latency_p99", "p99 latency", "µs", 1e6, more_is_better=False),
    Figure("cpu_per_request", "CPU per request", "µs", 1e6, more_is_better=False),
    Figure("cpu_per_byte", "CPU per GB", "s", 1e9, more_is_better=False),
    Figure("bpf_ns_per_message", "BPF per message", "ns", 1, more_is_better=False),
    Figure("instructions", "instructions per operation", "", 1, more_is_better=False),
    Figure("director_instructions", "of them the director's own", "", 1, more_is_better=False),
)


def write_report(directory: Path, order: Sequence[str]) -> Path:
    """Write the page of all results in a directory, by name in this order; return its path."""
    places = {name: place for place, name in enumerate(order)}
    found = [read(path) for path in sorted(directory.glob("*.json"))]
    results = sorted(
        found,
        key=lambda result: (places.get(result["name"], len(places)), result["against"] != "off"),
    )
    values = {"results": results, "rows": rows, "grid": grid, "baseline_name": BASELINE_NAMES.get}
    page = directory / PAGE
    page.write_text(render(PAGE, values, {"position": position}), encoding="utf-8")
    return page


def read(path: Path) -> dict[str, Any]:
    """Return a result from its file."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def grid(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the page shows of a grid, None when the result is not that of one."""
    if not has_cells(result):
        return None
    found = grid_rows(result)
    panels = [Panel(condition, condition, found) for condition in CONDITIONS]
    return {
        "rows": found,
        "summary": summary(found),
        "pictures": [draw(aspect, panels) for aspect in ASPECTS],
    }


def rows(case: Mapping[str, Any], against: str) -> list[dict[str, Any]]:
    """Return what the page shows of one case, a row a figure."""
    return [_row(figure, case, against) for figure in FIGURES if figure.key in case["arms"]["on"]]


def _row(figure: Figure, case: Mapping[str, Any], against: str) -> dict[str, Any]:
    baseline = case["arms"][against].get(figure.key)
    on = case["arms"]["on"][figure.key]
    ratio = None if figure.key in COSTS_ON_TOP else case["ratio"].get(figure.key)
    return {
        "title": figure.title,
        "unit": figure.unit,
        "baseline": "-" if baseline is None else figure.shown(baseline),
        "on": figure.shown(on),
        "ratio": ratio,
        "difference": ""
        if baseline is None
        else f"{'+' if on >= baseline else '-'}{figure.shown(abs(on - baseline))}",
        "range": case["ratio_range"].get(figure.key),
        "verdict": "even" if ratio is None else figure.judge(ratio),
    }


def position(ratio: float) -> float:
    """Return where a ratio lies on the scale of the charts, in percent of its width."""
    return 100 * min(ratio, LARGEST_RATIO) / LARGEST_RATIO
