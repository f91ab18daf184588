"""The figures of a run: their names, and how they are written for people."""

from __future__ import annotations

Figures = dict[str, float]
"""Figures of one run, or of several, under the keys of METRICS; times in seconds."""

METRICS = {
    "qps": "QPS",
    "latency_mean": "mean",
    "latency_p50": "p50",
    "latency_p99": "p99",
    "cpu_per_request": "CPU/request",
}
"""The keys of the figures, and the headings of their columns."""


def format_figure(name: str, value: float) -> str:
    """Write a figure of METRICS: a rate as a whole number, a time in its fitting unit."""
    return f"{value:,.0f}" if name == "qps" else format_seconds(value)


def format_seconds(value: float) -> str:
    """Write a time in seconds with three digits: `1.23 s`, `45.6 ms` or `789 us`."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        # 0.9995 and more would round to 1000 of the smaller unit.
        if value * factor >= 0.9995:
            return f"{_three_digits(value * factor)} {unit}"
    return f"{_three_digits(value * 1e6)} us"


def format_ratio(value: float) -> str:
    """Write a multiple as the literature does: `x1.18`."""
    return f"x{value:.2f}"


def format_bytes(value: float) -> str:
    """Write a number of bytes in decimal units: `1.23 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{_three_digits(value / factor)} {unit}"
    return f"{value:.0f} B"


def _three_digits(value: float) -> str:
    for limit, decimals in ((9.995, 2), (99.95, 1)):
        if value < limit:
            return f"{value:.{decimals}f}"
    return f"{value:,.0f}"
