"""What the benchmarks make of measurements: medians, ratios, percentiles and documents."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.baselines import Entry, redirected_share
from tests.bench.benchmarks import ALL
from tests.bench.message_cost import cost_of_busiest
from tests.bench.report import FIGURES as SHOWN_FIGURES
from tests.bench.report import position, write_report
from tests.bench.results import (
    FIGURES,
    BenchmarkResult,
    CaseResult,
    Machine,
    Pair,
    medians,
    ratio_of,
)
from tests.bench.runner import NotAsPromisedError, check
from tests.bench.terminal import case_text
from tests.support.bpftool import RunStatistics
from tests.support.mesh_load import Latencies, parse_requests, parse_stream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.model import Baseline

AGAINST: tuple[Baseline, ...] = ("off", "classic")
PAIRS = (
    Pair({"qps": 100.0, "latency_p50": 4.0}, {"qps": 300.0, "latency_p50": 1.0}),
    Pair({"qps": 200.0, "latency_p50": 2.0}, {"qps": 200.0, "latency_p50": 2.0}),
    Pair({"qps": 400.0, "latency_p50": 8.0}, {"qps": 100.0, "latency_p50": 4.0}),
)


def result(against: Baseline = "off", pairs: tuple[Pair, ...] = PAIRS) -> BenchmarkResult:
    return BenchmarkResult(
        name="sockops-example",
        title="Example <one>",
        against=against,
        machine=Machine(kernel="6.18.0", load=0.25, processors=2),
        pairs=len(pairs),
        seconds=1.0,
        redirected_share=0.5,
        baseline_redirected_share=0.25 if against == "classic" else None,
        cases=(CaseResult("first", "64 bytes", pairs), CaseResult("second", "1 KB", pairs[:1])),
    )


def test_ratio_is_that_of_the_medians_and_not_the_median_of_ratios() -> None:
    case = CaseResult("case", "load", PAIRS)

    assert case.baseline == {"qps": 200.0, "latency_p50": 4.0}
    assert case.on == {"qps": 200.0, "latency_p50": 2.0}
    assert case.ratio == {"qps": 1.0, "latency_p50": 0.5}


def test_range_holds_the_smallest_and_largest_ratio_of_a_pair() -> None:
    assert CaseResult("case", "load", PAIRS).ratio_range == {
        "qps": (0.25, 3.0),
        "latency_p50": (0.25, 1.0),
    }


def test_only_figures_that_every_sample_has_are_compared() -> None:
    assert medians([{"qps": 1.0, "latency_p99": 1.0}, {"qps": 3.0}]) == {"qps": 2.0}
    assert ratio_of({}, {"bpf_ns_per_message": 200.0}) == {}
    assert medians([]) == {}


def test_document_has_the_form_that_design_names() -> None:
    document = result().document()

    assert {"name", "kernel", "load", "pairs", "arms", "ratio"} <= document.keys()
    assert document["pairs"] == len(PAIRS)
    assert document["arms"].keys() == {"off", "on"}
    assert document["arms"]["off"].keys() == document["arms"]["on"].keys() == {"qps", "latency_p50"}
    assert document["ratio"] == {"qps": 1.0, "latency_p50": 0.5}
    assert [case["label"] for case in document["cases"]] == ["first", "second"]
    assert json.loads(json.dumps(document))["ratio_range"]["qps"] == [0.25, 3.0]


def test_comparison_with_another_variant_is_kept_beside_the_one_with_off() -> None:
    classic = result("classic")

    assert classic.document()["arms"].keys() == {"classic", "on"}
    assert classic.file_name == "sockops-example-against-classic.json"
    assert result().file_name == "sockops-example.json"


def test_a_part_of_the_cells_does_not_replace_the_whole_nor_an_unusual_baseline_the_usual() -> None:
    assert replace(result(), selection=("busy",)).file_name == "sockops-example-selected.json"
    assert replace(result(), against="empty", usual_baseline="empty").file_name == "sockops-example.json"
    assert replace(result(), usual_baseline="empty").file_name == "sockops-example-against-off.json"


COUNTED = (
    Pair({"bpf_ns_per_message": 60.0}, {"bpf_ns_per_message": 196.0}),
    Pair({"bpf_ns_per_message": 70.0}, {"bpf_ns_per_message": 190.0}),
)


def test_counted_time_is_compared_by_difference() -> None:
    case = CaseResult("case", "load", COUNTED)

    assert case.difference == {"bpf_ns_per_message": 128.0}
    assert case_text(case) == "bpf_ns_per_message 65 -> 193 (+128)"
    assert CaseResult("case", "load", PAIRS).difference == {}


def test_page_shows_counted_time_with_its_difference(tmp_path: Path) -> None:
    found = result("empty", COUNTED)
    (tmp_path / found.file_name).write_text(json.dumps(found.document()), encoding="utf-8")

    page = write_report(tmp_path, []).read_text(encoding="utf-8")

    assert "<td>65</td><td>193</td>" in page
    assert '">+128</td>' in page


def test_message_cost_is_that_of_the_busiest_program() -> None:
    own, foreign = RunStatistics(seconds=0.001, runs=10_000), RunStatistics(seconds=5.0, runs=9)

    assert cost_of_busiest([foreign, own]) == {"bpf_ns_per_message": pytest.approx(100.0)}
    assert cost_of_busiest([RunStatistics(0.0, 0)]) == cost_of_busiest([]) == {}


def test_redirected_share_of_the_classic_variant_is_over_all_processors() -> None:
    def entry(key: int, *values: int) -> Entry:
        return {"formatted": {"key": key, "values": [{"cpu": 0, "value": value} for value in values]}}

    assert redirected_share([entry(0, 10, 15), entry(1, 50, 25)]) == 0.75
    assert redirected_share([entry(0, 0), entry(1, 0)]) == 0.0


@pytest.mark.parametrize(
    ("redirects", "share", "kept"),
    [(True, 0.1, True), (True, 0.0, False), (False, 0.0, True), (False, 0.1, False), (None, 0.0, True)],
)
def test_an_arm_that_redirects_otherwise_than_promised_is_an_error(
    redirects: bool | None, share: float, kept: bool
) -> None:
    benchmark = replace(ALL[0], redirects=redirects)
    with contextlib.nullcontext() if kept else pytest.raises(NotAsPromisedError, match="arm 'classic'"):
        check(benchmark, share, "classic")


def test_every_figure_is_shown_on_the_page() -> None:
    assert {figure.key for figure in SHOWN_FIGURES} == set(FIGURES)


def test_page_holds_results_escaped_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    for against in AGAINST:
        found = result(against)
        (tmp_path / found.file_name).write_text(json.dumps(found.document()), encoding="utf-8")

    page = write_report(tmp_path, ["sockops-example"]).read_text(encoding="utf-8")

    assert page.count("Example &lt;one&gt;") == 2
    assert "&times;0.50" in page
    assert page.count("by the classic variant 25 %") == 1
    assert "http" not in page


def test_page_shows_a_figure_that_the_baseline_lacks(tmp_path: Path) -> None:
    found = result(pairs=(Pair({}, {"bpf_ns_per_message": 196.0}),))
    (tmp_path / found.file_name).write_text(json.dumps(found.document()), encoding="utf-8")

    assert "<td>196</td>" in write_report(tmp_path, ["sockops-example"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(("ratio", "percent"), [(0.0, 0.0), (1.0, 50.0), (2.0, 100.0), (7.0, 100.0)])
def test_chart_position_ends_at_the_edge(ratio: float, percent: float) -> None:
    assert position(ratio) == percent


@pytest.mark.parametrize(
    ("key", "ratio", "verdict"),
    [
        ("qps", 1.5, "gain"),
        ("qps", 0.9, "loss"),
        ("latency_p99", 0.5, "gain"),
        ("cpu_per_request", 1.03, "loss"),
        ("qps", 0.99, "even"),
    ],
)
def test_verdict_knows_which_way_is_better(key: str, ratio: float, verdict: str) -> None:
    figure = next(figure for figure in SHOWN_FIGURES if figure.key == key)

    assert figure.judge(ratio) == verdict


def latencies(*buckets: tuple[float, int]) -> Latencies:
    count = sum(number for _, number in buckets)
    return Latencies(count, 0.0, buckets[0][0], buckets[-1][0], buckets)


def test_percentile_is_the_bound_that_so_many_requests_stay_within() -> None:
    found = latencies((0.001, 50), (0.002, 49), (0.5, 1))

    assert found.percentile(50) == 0.001
    assert found.percentile(50.1) == 0.002
    assert found.percentile(99) == 0.002
    assert found.percentile(99.9) == 0.5
    assert found.percentiles() == ((50.0, 0.001), (99.0, 0.002), (100.0, 0.5))


def test_percentile_is_never_above_the_largest_latency() -> None:
    assert Latencies(1, 0.0010, 0.0010, 0.0010, ((0.0012, 1),)).percentile(99) == 0.0010


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 requests"):
        Latencies(0, 0.0, 0.0, 0.0, ()).percentile(50)


@given(st.lists(st.tuples(st.floats(1e-9, 10), st.integers(1, 1000)), min_size=1))
def test_percentiles_rise_and_end_at_all_requests(buckets: list[tuple[float, int]]) -> None:
    found = latencies(*sorted(buckets))
    points = found.percentiles()

    assert list(points) == sorted(points)
    assert points[-1][0] == 100.0
    assert all(found.percentile(percent) <= found.maximum for percent in (1, 50, 99, 100))
    assert math.isclose(found.percentile(100), found.maximum)


def test_results_of_the_load_generator_are_read() -> None:
    requests = parse_requests(
        '{"mode": "pingpong", "connections": 1, "size": 64, "seconds": 2, "requests": 3, '
        '"latency": {"count": 3, "mean": 0.2, "minimum": 0.1, "maximum": 0.3, '
        '"buckets": [[0.1, 2], [0.3, 1]]}}'
    )
    stream = parse_stream('{"mode": "stream", "connections": 1, "size": 9, "seconds": 4, "bytes": 8}')

    assert requests.requests_per_second == 1.5
    assert requests.latencies.percentile(50) == 0.1
    assert stream.bytes_per_second == 2.0


def test_names_begin_with_the_accelerator_and_cases_are_told_apart() -> None:
    assert all(benchmark.name.startswith("sockops-") for benchmark in ALL)
    assert len({benchmark.name for benchmark in ALL}) == len(ALL)
    for benchmark in ALL:
        labels = [case.label for case in benchmark.cases]
        assert len(set(labels)) == len(labels) > 0
