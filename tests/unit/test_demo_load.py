"""What the load generators wrote is read as they meant it; the samples were recorded from real runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.demo.load import at_percent, parse_mesh_load, parse_redis_benchmark, parse_wrk

RECORDED = Path(__file__).with_name("recorded")


def recorded(name: str) -> str:
    # As text, so that the carriage returns of progress lines arrive as from a pipe.
    return (RECORDED / name).read_text(encoding="utf-8")


def test_wrk() -> None:
    result = parse_wrk(recorded("wrk.txt"))
    assert result.requests == 3139
    assert result.qps == pytest.approx(3137.59, abs=0.01)  # wrk's own line says so
    assert result.errors == 0
    assert result.latency_mean == pytest.approx(1600.285e-6)
    assert result.latency_p50 == pytest.approx(866e-6)
    assert result.latency_p99 == pytest.approx(6775e-6)
    assert result.percentiles[0] == pytest.approx((1.0, 485e-6))
    assert result.percentiles[-1] == pytest.approx((99.99, 11545e-6))


def test_wrk_adds_up_all_kinds_of_errors() -> None:
    output = recorded("wrk.txt").replace('"errors":0', '"errors":7')
    assert parse_wrk(output).errors == 7


def test_wrk_without_its_script() -> None:
    output = recorded("wrk.txt").partition("{")[0]
    with pytest.raises(ValueError, match="no figures"):
        parse_wrk(output)


def test_redis_benchmark() -> None:
    result = parse_redis_benchmark(recorded("redis-benchmark.txt"))
    assert result.requests == 18519
    assert result.qps == pytest.approx(27273.93)
    assert result.latency_mean == pytest.approx(0.105e-3)
    assert result.latency_p50 == pytest.approx(0.079e-3)
    assert result.latency_p99 == pytest.approx(1.279e-3)
    assert dict(result.percentiles)[50.0] == pytest.approx(0.079e-3)
    assert result.percentiles[0] == pytest.approx((0.0, 0.031e-3))
    assert result.percentiles[-1] == pytest.approx((100.0, 6.895e-3))


def test_redis_benchmark_leaves_out_the_second_distribution() -> None:
    percents = [percent for percent, _ in parse_redis_benchmark(recorded("redis-benchmark.txt")).percentiles]
    assert percents == sorted(percents)
    assert len([percent for percent in percents if percent == 0]) == 1


@pytest.mark.parametrize("part", ["requests completed", "throughput summary", "avg       min"])
def test_redis_benchmark_cut_short(part: str) -> None:
    output = recorded("redis-benchmark.txt").replace(part, "")
    with pytest.raises(ValueError, match="redis-benchmark"):
        parse_redis_benchmark(output)


def test_mesh_load() -> None:
    buckets = [[0.001, 50], [0.002, 40], [0.010, 10]]
    latency = {"count": 100, "mean": 0.0023, "minimum": 0.0005, "maximum": 0.009, "buckets": buckets}
    result = parse_mesh_load(json.dumps({"seconds": 2, "requests": 100, "latency": latency}))
    assert result.qps == 50
    assert result.latency_mean == 0.0023
    assert result.latency_p50 == 0.001
    assert result.latency_p99 == 0.009
    assert result.percentiles == ((50.0, 0.001), (90.0, 0.002), (100.0, 0.009))


@pytest.mark.parametrize(
    ("percent", "latency"),
    [(5, 1.0), (10, 1.0), (30, 2.0), (50, 3.0), (90, 7.0), (99.9, 7.0)],
)
def test_latency_at_a_percentage(percent: float, latency: float) -> None:
    assert at_percent(((10, 1.0), (50, 3.0), (90, 7.0)), percent) == pytest.approx(latency)
