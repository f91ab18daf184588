"""The report: one HTML file that needs nothing else, for a screen of any width and for paper."""

from __future__ import annotations

from pathlib import Path

import jinja2

from tests.demo.charts import percentile_chart, ratio_chart
from tests.demo.figures import METRICS, format_bytes, format_figure, format_ratio, format_seconds
from tests.demo.results import Results
from tests.demo.sidecar import TEMPLATES

RATIO_CHARTS = {
    "qps": "Requests per second: more is better",
    "latency_mean": "Mean latency: less is better",
    "latency_p99": "p99 latency: less is better",
    "cpu_per_request": "Processor time per request: less is better",
}


def render_report(results: Results) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.filters.update(ratio=format_ratio, seconds=format_seconds, bytes=format_bytes)
    return environment.get_template("report.html.j2").render(
        results=results,
        metrics=METRICS,
        figure=format_figure,
        ratio_charts={
            title: ratio_chart(results.workloads, metric) for metric, title in RATIO_CHARTS.items()
        },
        percentile_chart=percentile_chart,
    )


def write_report(results: Results, path: Path) -> None:
    """Write the report to `path`."""
    path.write_text(render_report(results), encoding="utf-8")
