"""Pairs alternate, rounds end in time, and what is compared are the medians."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from tests.demo.measurement import Schedule, figures_of, measure
from tests.demo.workloads import Workload
from tests.unit.demo_results import comparison, sample

if TYPE_CHECKING:
    from tests.demo.mesh import Mesh, Sample


def mesh(name: str, log: list[str]) -> Mesh:
    return cast("Mesh", SimpleNamespace(name=name, wait_for_empty_pools=lambda: log.append(f"empty {name}")))


def workload(name: str, log: list[str]) -> Workload:
    def run(on: Mesh, seconds: int) -> Sample:
        log.append(f"{name} {on.name} {seconds}")
        return sample(2000 if on.name == "on" else 1000)

    return Workload(name, name, "a path", run)


def test_the_first_mesh_of_a_pair_alternates() -> None:
    log: list[str] = []
    workloads = [workload("a", log), workload("b", log)]
    found = measure(mesh("off", log), mesh("on", log), workloads, Schedule(2, 3), report=lambda _: None)
    runs = [line for line in log if not line.startswith("empty")]
    assert runs == ["a off 3", "a on 3", "b off 3", "b on 3", "a on 3", "a off 3", "b on 3", "b off 3"]
    assert {name: len(item.pairs) for name, item in found.items()} == {"a": 2, "b": 2}
    assert found["a"].ratio["qps"] == 2


def test_connections_of_a_mesh_are_gone_before_each_of_its_runs() -> None:
    log: list[str] = []
    measure(mesh("off", log), mesh("on", log), [workload("a", log)], Schedule(1, 1), report=lambda _: None)
    assert log == ["empty off", "a off 1", "empty on", "a on 1"]


def test_one_round_is_made_even_when_it_is_late() -> None:
    log: list[str] = []
    schedule = Schedule(5, 1, deadline=time.monotonic() - 1)
    found = measure(mesh("off", log), mesh("on", log), [workload("a", log)], schedule, report=lambda _: None)
    assert len(found["a"].pairs) == 1


def test_ratio_is_that_of_the_medians() -> None:
    # The medians are 100 and 200; the pairs' own ratios are 3, 2 and 0.25.
    found = comparison((sample(100), sample(300)), (sample(100), sample(200)), (sample(400), sample(100)))
    assert found.off["qps"] == 100
    assert found.on["qps"] == 200
    assert found.ratio["qps"] == 2


def test_figures_of_a_run() -> None:
    assert figures_of(sample(500, 0.004, cpu=2.0)) == {
        "qps": 500,
        "latency_mean": 0.004,
        "latency_p50": 0.004,
        "latency_p99": 0.008,
        "cpu_per_request": pytest.approx(0.004),
    }


def test_errors_of_all_runs_are_counted() -> None:
    found = comparison((sample(errors=1), sample(errors=2)), (sample(), sample(errors=4)))
    assert found.errors == 7


def test_curve_lies_between_the_runs() -> None:
    found = comparison(*((sample(latency=latency), sample()) for latency in (0.001, 0.002, 0.004)))
    middle = next(band for band in found.curve_off() if band.percent == 50)
    assert (middle.lowest, middle.middle, middle.highest) == pytest.approx((0.001, 0.002, 0.004))
    latencies = [band.middle for band in found.curve_off()]
    assert latencies == sorted(latencies)
