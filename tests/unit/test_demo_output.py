"""What a person sees: figures, the terminal's table, the report, the JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.demo.charts import LogAxis, percentile_chart, ratio_chart
from tests.demo.figures import METRICS, format_bytes, format_figure, format_ratio, format_seconds
from tests.demo.report import render_report
from tests.demo.results import ByteCounts
from tests.demo.table import render_table
from tests.demo.workloads import WORKLOADS
from tests.unit.demo_results import RECAP, results

VOID_ELEMENTS = {"meta", "br", "link"}


class Page(HTMLParser):
    """Collects a page's text and checks that its elements are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.names: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names += [tag, *(name for name, _ in attrs)]
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names += [tag, *(name for name, _ in attrs)]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234, "1.23 s"), (0.9996, "1.00 s"), (0.9994, "999 ms"), (0.01234, "12.3 ms"),
        (0.00999, "9.99 ms"), (0.009996, "10.0 ms"), (0.0009994, "999 us"), (0.0000042, "4.20 us"),
    ],
)  # fmt: skip
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2e6, "2.00 MB"), (123e9, "123 GB")]
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


def test_figures() -> None:
    assert format_figure("qps", 12398.6) == "12,399"
    assert format_figure("cpu_per_request", 0.000132) == "132 us"
    assert format_ratio(1.179) == "x1.18"


def test_share_of_bytes() -> None:
    assert ByteCounts(3, 1).share == 0.75
    assert ByteCounts(0, 0).share == 0
    assert ByteCounts(10, 5) - ByteCounts(4, 3) == ByteCounts(6, 2)


def test_table_has_every_workload_with_all_its_rows() -> None:
    sections = render_table(results().workloads).split("\n\n")[1:]
    assert len(sections) == len(WORKLOADS)
    for section, workload in zip(sections, WORKLOADS, strict=True):
        title, *rows = section.strip("\n").splitlines()
        assert title == workload.title
        assert [row.split("  ")[1] for row in rows] == [
            "kernel", "accelerated", "ratio", "noise: both kernel",
            *(item.source for item in workload.published),
        ]  # fmt: skip
        assert rows[0].split()[1:] == ["1,000", "2.00", "ms", "2.00", "ms", "4.00", "ms", "1.00", "ms"]
        assert rows[2].split()[1:3] == ["x1.25", "x0.78"]


def test_published_figures_stand_below_their_metric() -> None:
    lines = render_table(results().workloads).splitlines()
    mean_ends = lines[0].index("mean") + len("mean")
    netease = next(line for line in lines if "NetEase" in line)
    assert netease.split() == ["NetEase", "x0.90"]
    assert len(netease) == mean_ends


def test_table_fits_a_terminal() -> None:
    assert max(map(len, render_table(results().workloads).splitlines())) <= 80


def test_table_is_bold_only_where_asked() -> None:
    assert "\033" not in render_table(results().workloads)
    assert f"\033[1m{WORKLOADS[0].title}\033[0m" in render_table(results().workloads, emphasis=True)


def test_report_is_complete() -> None:
    text = Page(render_report(results())).text
    for workload in WORKLOADS:
        assert workload.title in text
        assert workload.path in text
        assert all(item.source in text for item in workload.published)
    assert "75.0 %" in text
    assert RECAP in text
    assert "6.18.44" in text
    assert "2 pairs of 2 s" in text


def test_report_has_a_chart_of_each_kind() -> None:
    page = render_report(results())
    assert page.count('aria-label="Latency over percentiles') == len(WORKLOADS)
    for metric in ("qps", "latency_mean", "latency_p99", "cpu_per_request"):
        assert page.count(f'aria-label="Ratio of {METRICS[metric]}') == 1


def test_report_stands_alone() -> None:
    page = render_report(results())
    names = Page(page).names
    assert not {"script", "link", "img", "iframe", "src", "href"} & set(names)
    assert not re.search(r"url\(|@import|https?://", page)


def test_report_tells_failed_requests() -> None:
    assert "No request failed" in render_report(results())
    # 7 in one run of each workload's pairs.
    assert f"{7 * len(WORKLOADS)} requests failed" in render_report(results(errors=7))


def test_report_escapes_what_the_machine_says() -> None:
    page = render_report(results(environment={"Processor": "<b>Fast & Cheap</b>"}))
    assert "&lt;b&gt;Fast &amp; Cheap&lt;/b&gt;" in page


def test_results_survive_json() -> None:
    found = json.loads(json.dumps(results().as_json()))
    assert [item["name"] for item in found["workloads"]] == [workload.name for workload in WORKLOADS]
    after = found["workloads"][0]["after"]
    assert set(after["arms"]["off"]) == set(after["ratio"]) == set(METRICS)
    assert after["pairs"] == len(after["pair_ratios"]) == 2
    assert found["bytes_sent"] == {"redirected": 3_000_000, "tcp": 1_000_000, "share": 0.75}


def test_axis_is_logarithmic() -> None:
    axis = LogAxis(1, 100, 0, 200)
    assert [axis.position(value) for value in (1, 10, 100)] == pytest.approx([0, 100, 200])
    assert axis.holds(1)
    assert not axis.holds(101)


def test_charts_stay_within_their_frame() -> None:
    found = results()
    for chart in (percentile_chart(found.workloads[0].after), ratio_chart(found.workloads, "qps")):
        view = re.search(r'viewBox="([\d. ]+)"', chart)
        assert view is not None
        _, _, width, height = view[1].split()
        for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', chart):
            assert 0 <= float(x) <= float(width)
            assert 0 <= float(y) <= float(height)
        for points in re.findall(r'points="([^"]+)"', chart):
            for x, y in (point.split(",") for point in points.split()):
                assert 0 <= float(x) <= float(width)
                assert 0 <= float(y) <= float(height)
