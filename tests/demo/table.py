"""The result as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.demo.figures import METRICS, format_figure, format_ratio
from tests.demo.results import WorkloadResult

LABEL_WIDTH = 22
COLUMN_WIDTHS = {"qps": 10, "latency_mean": 11, "latency_p50": 11, "latency_p99": 11, "cpu_per_request": 13}

Cell = TypeVar("Cell")


def render_table(results: tuple[WorkloadResult, ...], *, emphasis: bool = False) -> str:
    """Write the figures of both meshes, their ratio and what others published, workload by workload.

    `emphasis` makes titles and ratios bold, for a terminal.
    """
    lines = [_row("", METRICS, lambda _, heading: heading)]
    for result in results:
        lines += [
            "",
            _bold(result.workload.title, emphasis),
            _row("kernel", result.after.off, format_figure),
            _row("accelerated", result.after.on, format_figure),
            _bold(_ratio_row("ratio", result.after.ratio), emphasis),
            _ratio_row("noise: both kernel", result.before.ratio),
        ]
        lines += [_ratio_row(item.source, item.ratios) for item in result.workload.published]
    return "\n".join(lines) + "\n"


def _ratio_row(label: str, ratios: Mapping[str, float]) -> str:
    return _row(label, ratios, lambda _, value: format_ratio(value))


def _row(label: str, cells: Mapping[str, Cell], write: Callable[[str, Cell], str]) -> str:
    words = [write(name, cells[name]) if name in cells else "" for name in METRICS]
    columns = "".join(word.rjust(width) for word, width in zip(words, COLUMN_WIDTHS.values(), strict=True))
    return f"  {label:<{LABEL_WIDTH - 2}}{columns}".rstrip()


def _bold(text: str, emphasis: bool) -> str:
    return f"\033[1m{text}\033[0m" if emphasis else text
