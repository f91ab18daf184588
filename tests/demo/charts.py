"""The report's figures as SVG, drawn small enough to be read at the width of a phone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from tests.demo.figures import METRICS, format_ratio, format_seconds
from tests.demo.measurement import Band, Comparison
from tests.demo.results import WorkloadResult

WIDTH = 400
PERCENT_TICKS = (50, 90, 99, 99.9)
LATENCY_STEPS = (1, 2, 5)
RATIO_TICKS = (0.1, 0.2, 0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 10)
RATIO_ROW = 46
TICK_SPACING = 34


@dataclass(frozen=True)
class LogAxis:
    """A logarithmic scale from values to positions in the drawing."""

    lowest: float
    highest: float
    start: float
    end: float

    def position(self, value: float) -> float:
        """Return where `value` lies, inside or outside of the scale."""
        share = math.log(value / self.lowest) / math.log(self.highest / self.lowest)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether `value` lies on the scale."""
        return self.lowest <= value <= self.highest


class Drawing:
    """An SVG picture that is put together shape by shape; colours come from the page's style sheet."""

    def __init__(self, height: float, title: str) -> None:
        """Begin a picture of WIDTH by `height` units; `title` is for those who cannot see it."""
        view_box = f"0 0 {WIDTH} {height:.0f}"
        self._root = ET.Element("svg", {"viewBox": view_box, "role": "img", "aria-label": title})

    def add(self, shape: str, style: str, **attributes: float | str) -> None:
        """Add a shape with a class of the style sheet; lengths are rounded to a tenth of a unit."""
        words = {
            name: value if isinstance(value, str) else f"{value:.1f}" for name, value in attributes.items()
        }
        ET.SubElement(self._root, shape, {"class": style, **words})

    def write(self, x: float, y: float, words: str, anchor: str, style: str = "tick") -> None:
        """Add a text that starts, ends or has its middle at a place."""
        place = {"class": style, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        ET.SubElement(self._root, "text", place).text = words

    def svg(self) -> str:
        """Return the picture for use inside of HTML."""
        return ET.tostring(self._root, encoding="unicode")


@dataclass(frozen=True)
class PercentileAxes:
    """Latency upwards, percentiles to the right: each further nine takes as much room as the one before."""

    latency: LogAxis
    percentile: LogAxis

    @classmethod
    def for_bands(cls, bands: Sequence[Band]) -> PercentileAxes:
        """Return axes with room for all these bands."""
        lowest = min(band.lowest for band in bands)
        highest = max(band.highest for band in bands)
        return cls(LogAxis(lowest / 1.15, highest * 1.15, 232, 12), LogAxis(1, 1000, 58, 388))

    def x(self, percent: float) -> float:
        """Return where a percentile stands."""
        return self.percentile.position(100 / (100 - percent))

    def points(self, points: Iterable[tuple[float, float]]) -> str:
        """Return percentiles and latencies as the points of a line."""
        return " ".join(
            f"{self.x(percent):.1f},{self.latency.position(latency):.1f}" for percent, latency in points
        )


def percentile_chart(comparison: Comparison) -> str:
    """Draw latency over percentiles for both meshes: medians as lines, all runs as a band behind them."""
    curves = {"kernel": comparison.curve_off(), "accelerated": comparison.curve_on()}
    axes = PercentileAxes.for_bands([band for curve in curves.values() for band in curve])
    drawing = Drawing(276, "Latency over percentiles, kernel and accelerated")
    _draw_latency_grid(drawing, axes)
    _draw_percentile_grid(drawing, axes)
    for name, curve in curves.items():
        above = [(band.percent, band.highest) for band in curve]
        below = [(band.percent, band.lowest) for band in reversed(curve)]
        drawing.add("polygon", f"band {name}", points=axes.points([*above, *below]))
    for name, curve in curves.items():
        middle = ((band.percent, band.middle) for band in curve)
        drawing.add("polyline", f"curve {name}", points=axes.points(middle))
    _draw_curve_names(drawing, tuple(curves))
    drawing.write(223, 268, "percentile of the requests", "middle")
    return drawing.svg()


def ratio_chart(results: Sequence[WorkloadResult], metric: str) -> str:
    """Draw one metric's ratio for every workload: each pair a dot, the ratio of medians a bar.

    Pairs made before the converge show what the machine does by itself; others' figures stand beside.
    """
    axis = LogAxis(*_ratio_range(results, metric), 14, 386)
    bottom = 8 + RATIO_ROW * len(results)
    drawing = Drawing(bottom + 24, f"Ratio of {METRICS[metric]}, workload by workload")
    for tick in _ratio_ticks(axis):
        x = axis.position(tick)
        drawing.add("line", "one" if tick == 1 else "grid", x1=x, x2=x, y1=6, y2=bottom)
        drawing.write(x, bottom + 16, f"x{tick:g}", "middle")
    for number, result in enumerate(results):
        _draw_ratio_row(drawing, result, metric, axis, 8 + RATIO_ROW * number)
    return drawing.svg()


def _draw_latency_grid(drawing: Drawing, axes: PercentileAxes) -> None:
    axis = axes.latency
    exponents = range(math.floor(math.log10(axis.lowest)), math.ceil(math.log10(axis.highest)))
    for latency in (step * 10.0**exponent for exponent in exponents for step in LATENCY_STEPS):
        if not axis.holds(latency):
            continue
        y = axis.position(latency)
        drawing.add("line", "grid", x1=axes.percentile.start, x2=axes.percentile.end, y1=y, y2=y)
        number, unit = format_seconds(latency).split()
        drawing.write(axes.percentile.start - 6, y + 4, f"{float(number):g} {unit}", "end")


def _draw_percentile_grid(drawing: Drawing, axes: PercentileAxes) -> None:
    for percent in PERCENT_TICKS:
        x = axes.x(percent)
        drawing.add("line", "grid", x1=x, x2=x, y1=axes.latency.end, y2=axes.latency.start)
        anchor = "end" if percent == PERCENT_TICKS[-1] else "middle"
        drawing.write(x, axes.latency.start + 16, f"p{percent:g}", anchor)


def _draw_curve_names(drawing: Drawing, names: Sequence[str]) -> None:
    drawing.add("rect", "paper", x=64, y=16, width=112, height=40)
    for number, name in enumerate(names):
        y = 28 + 18 * number
        drawing.add("polyline", f"curve {name}", points=f"70,{y} 98,{y}")
        drawing.write(104, y + 4, name, "start")


def _draw_ratio_row(drawing: Drawing, result: WorkloadResult, metric: str, axis: LogAxis, top: float) -> None:
    middle = top + 29
    ratio = result.after.ratio[metric]
    x, one = axis.position(ratio), axis.position(1)
    drawing.write(14, top + 13, result.workload.title, "start", "label")
    drawing.write(386, top + 13, format_ratio(ratio), "end", "value")
    drawing.add("rect", "bar", x=min(x, one), width=abs(x - one), y=middle - 7, height=14)
    for style, comparison in (("noise", result.before), ("pair", result.after)):
        for pair in comparison.pairs:
            drawing.add("circle", style, cx=axis.position(pair.ratio[metric]), cy=middle, r=4)
    drawing.add("line", "median", x1=x, x2=x, y1=middle - 9, y2=middle + 9)
    for value in sorted(set(_published(result, metric))):
        diamond = f"M{axis.position(value):.1f},{middle - 7:.1f} l6,7 l-6,7 l-6,-7 z"
        drawing.add("path", "published", d=diamond)


def _published(result: WorkloadResult, metric: str) -> list[float]:
    return [item.ratios[metric] for item in result.workload.published if metric in item.ratios]


def _ratio_range(results: Sequence[WorkloadResult], metric: str) -> tuple[float, float]:
    values = [1.0]
    for result in results:
        values += [pair.ratio[metric] for pair in (*result.before.pairs, *result.after.pairs)]
        values += _published(result, metric)
    return min(values) / 1.06, max(values) * 1.06


def _ratio_ticks(axis: LogAxis) -> list[float]:
    """Return the ticks on the axis, from "no change" outwards, without those whose labels would touch."""
    kept = [1.0]
    for tick in sorted(filter(axis.holds, RATIO_TICKS), key=lambda value: abs(math.log(value))):
        if all(abs(axis.position(tick) - axis.position(other)) > TICK_SPACING for other in kept):
            kept.append(tick)
    return kept
