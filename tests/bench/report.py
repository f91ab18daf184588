"""One page of all results, in one file, without anything from elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEMPLATES = Path(__file__).parent / "templates"
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


FIGURES = (
    Figure("qps", "requests", "/s", 1, more_is_better=True),
    Figure("bytes_per_second", "throughput", "MB/s", 1e-6, more_is_better=True),
    Figure("latency_mean", "mean latency", "µs", 1e6, more_is_better=False),
    Figure("latency_p50", "p50 latency", "µs", 1e6, more_is_better=False),
    Figure("latency_p99", "p99 latency", "µs", 1e6, more_is_better=False),
    Figure("cpu_per_request", "CPU per request", "µs", 1e6, more_is_better=False),
    Figure("cpu_per_byte", "CPU per GB", "s", 1e9, more_is_better=False),
    Figure("bpf_ns_per_message", "BPF per message", "ns", 1, more_is_better=False),
)


def write_report(directory: Path, order: Sequence[str]) -> Path:
    """Write the page of all results in a directory, by name in this order; return its path."""
    places = {name: place for place, name in enumerate(order)}
    found = [read(path) for path in sorted(directory.glob("*.json"))]
    results = sorted(
        found,
        key=lambda result: (places.get(result["name"], len(places)), result["against"] != "off"),
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["position"] = position
    template = environment.get_template(f"{PAGE}.j2")
    page = directory / PAGE
    page.write_text(template.render(results=results, rows=rows), encoding="utf-8")
    return page


def read(path: Path) -> dict[str, Any]:
    """Return a result from its file."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def rows(case: Mapping[str, Any], against: str) -> list[dict[str, Any]]:
    """Return what the page shows of one case, a row a figure."""
    return [_row(figure, case, against) for figure in FIGURES if figure.key in case["arms"]["on"]]


def _row(figure: Figure, case: Mapping[str, Any], against: str) -> dict[str, Any]:
    baseline = case["arms"][against].get(figure.key)
    ratio = case["ratio"].get(figure.key)
    return {
        "title": figure.title,
        "unit": figure.unit,
        "baseline": "-" if baseline is None else figure.shown(baseline),
        "on": figure.shown(case["arms"]["on"][figure.key]),
        "ratio": ratio,
        "range": case["ratio_range"].get(figure.key),
        "verdict": "even" if ratio is None else figure.judge(ratio),
    }


def position(ratio: float) -> float:
    """Return where a ratio lies on the scale of the charts, in percent of its width."""
    return 100 * min(ratio, LARGEST_RATIO) / LARGEST_RATIO
