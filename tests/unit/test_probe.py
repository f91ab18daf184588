"""The probe's arithmetic, settings and report."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.errors import InvalidInput
from meshaccel.probe import Settings, measure, sockops_counters
from meshaccel.probe.figures import Run, alternate, medians, percentile, ratio
from meshaccel.probe.measurement import add, report
from meshaccel.probe.settings import payload
from meshaccel.system.cgroups import Hierarchy

PARAMETERS: dict[str, Any] = {
    "address": None,
    "port": None,
    "cgroup": "web.slice",
    "request": None,
    "response": None,
    "message_bytes": 100,
    "connections": 2,
    "messages": 50,
    "duration": 8.0,
    "pairs": 2,
}


def figures_of(**changed: float) -> dict[str, float]:
    return {"qps": 100.0, "latency_p50": 0.01, "redirected_share": 0.0, **changed}


class TestFigures:
    def test_of_a_run(self) -> None:
        run = Run(latencies=(0.3, 0.1, 0.2, 0.4), seconds=2.0, payload_bytes=800, tcp_bytes=200)

        assert run.figures() == {
            "qps": 2.0,
            "latency_mean": pytest.approx(0.25),
            "latency_p50": 0.2,
            "latency_p99": 0.4,
            "bytes_per_second": 400.0,
            "redirected_share": 0.75,
        }

    @pytest.mark.parametrize(("tcp_bytes", "share"), [(0, 1.0), (800, 0.0), (900, 0.0)])
    def test_a_share_is_from_0_to_1(self, tcp_bytes: int, share: float) -> None:
        run = Run(latencies=(0.1,), seconds=1.0, payload_bytes=800, tcp_bytes=tcp_bytes)

        assert run.figures()["redirected_share"] == share

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
    def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(
        self, values: list[float], percent: float
    ) -> None:
        found = percentile(sorted(values), percent)

        assert found in values
        assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9
        assert sum(value < found for value in values) < percent / 100 * len(values) + 1e-9

    def test_medians_are_of_each_figure(self) -> None:
        runs = [figures_of(qps=qps) for qps in (1.0, 50.0, 3.0)]

        assert medians(runs) == figures_of(qps=3.0)

    def test_a_ratio_is_on_by_off_and_leaves_out_shares_and_zeros(self) -> None:
        on, off = figures_of(qps=130.0, redirected_share=1.0), figures_of(latency_p50=0.0)

        assert ratio(on, off) == {"qps": 1.3}

    @given(st.integers(1, 50))
    def test_arms_alternate_so_that_a_linear_drift_cancels_out(self, pairs: int) -> None:
        order = alternate("off", "on", pairs)
        places = {arm: [place for place, name in enumerate(order) if name == arm] for arm in ("off", "on")}

        assert len(places["off"]) == len(places["on"]) == pairs
        drift = statistics.fmean(places["on"]) - statistics.fmean(places["off"])
        assert drift == pytest.approx(0 if pairs % 2 == 0 else 1 / pairs)

    def test_two_pairs_are_a_b_b_a(self) -> None:
        assert alternate("A", "B", 2) == ("A", "B", "B", "A")

    def test_counters_add_up_over_runs(self) -> None:
        total = add({}, {"paired": 7, "bytes": 10}, {"paired": 5, "bytes": 4})

        assert add(total, {"paired": 9, "bytes": 20}, {"paired": 8, "bytes": 11}) == {
            "paired": 3,
            "bytes": 15,
        }


class TestReport:
    def test_compares_the_arms(self) -> None:
        on = figures_of(qps=150.0, redirected_share=1.0)
        found = report([("off", figures_of()), ("on", on)], {"connections_paired": 1})

        assert found["arms"] == {"off": figures_of(), "on": on}
        assert found["ratio"]["qps"] == 1.5
        assert found["redirected"] is True
        assert found["counters"] == {"connections_paired": 1}
        assert [run["arm"] for run in found["runs"]] == ["off", "on"]

    def test_says_that_nothing_was_redirected(self) -> None:
        assert report([("off", figures_of()), ("on", figures_of())], None)["redirected"] is False

    def test_refuses_to_compare_with_an_arm_that_is_accelerated_too(self) -> None:
        with pytest.raises(InvalidInput, match=r"98% .* root cgroup is accelerated"):
            report(
                [("off", figures_of(redirected_share=0.98)), ("on", figures_of(redirected_share=1.0))], None
            )


class TestSettings:
    def test_a_message_is_echoed_where_no_request_is_given(self) -> None:
        settings = Settings.parse(PARAMETERS)

        assert settings.request == settings.response == payload(100)
        assert len(settings.request) == 100

    def test_a_request_is_its_own_response_unless_one_is_given(self) -> None:
        assert Settings.parse({**PARAMETERS, "request": "ping"}).response == b"ping"
        assert Settings.parse({**PARAMETERS, "request": "ping", "response": "pong"}).response == b"pong"

    def test_runs_share_the_duration(self) -> None:
        settings = Settings.parse(PARAMETERS)

        assert settings.order() == ("off", "on", "on", "off")
        assert settings.load(80).seconds == 2.0

    def test_the_one_arm_without_a_cgroup_runs_as_often(self) -> None:
        assert Settings.parse({**PARAMETERS, "cgroup": None}).order() == ("endpoint",) * 4

    @pytest.mark.parametrize("length", [1, 250, 251, 252, 1000])
    def test_a_payload_has_its_length(self, length: int) -> None:
        assert len(payload(length)) == length

    @pytest.mark.parametrize(
        ("name", "value"),
        [("port", 65_536), ("message_bytes", 0), ("connections", 1025), ("duration", 0.05), ("pairs", 51)],
    )
    def test_a_number_out_of_bounds_is_refused_by_name(self, name: str, value: float) -> None:
        with pytest.raises(InvalidInput, match=rf"wanted {name} from .* found {value}"):
            Settings.parse({**PARAMETERS, name: value})


class TestCgroups:
    def test_a_cgroup_that_is_not_there_is_named(self, hierarchy: Hierarchy) -> None:
        with pytest.raises(InvalidInput, match=r"no directory .*/cgroup2/web\.slice"):
            measure(Settings.parse(PARAMETERS), hierarchy)

    def test_the_root_cgroup_cannot_be_compared_with_itself(self, hierarchy: Hierarchy) -> None:
        with pytest.raises(InvalidInput, match="name the cgroup that is accelerated"):
            measure(Settings.parse({**PARAMETERS, "cgroup": "."}), hierarchy)


class StatusOnly:
    """The part of Sockops that is used for counters."""

    hierarchy = Hierarchy("/cgroup2")

    def __init__(self, *paths: str) -> None:
        self._status = {"cgroups": {path: {"counters": {"of": len(path)}} for path in paths}} if paths else {}

    def status(self) -> dict[str, Any]:
        return self._status


class TestCounters:
    @pytest.mark.parametrize(
        ("opted_in", "counters"),
        [
            ((), None),
            (("web",), None),
            (("web.slice",), {"of": 9}),
            (("web.slice", "web.slice/nginx"), {"of": 15}),
            (("web.slice", "web.slice/ng"), {"of": 9}),
            (("web.slice/nginx/child",), None),
        ],
    )
    def test_are_those_of_the_innermost_cgroup_that_is_opted_in(
        self, opted_in: tuple[str, ...], counters: dict[str, int] | None
    ) -> None:
        node: Any = StatusOnly(*opted_in)

        assert sockops_counters(node, "/cgroup2/web.slice/nginx") == counters
