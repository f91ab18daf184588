# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The status of ipvs_bpf as Prometheus text."""

from __future__ import annotations

from collections.abc import Mapping

from ... import metrics
from ...model import Json
from .layout import ProgramMode
from .status import WITHOUT_PROGRAMS

PREFIX = "meshaccel_ipvs_bpf_"
MODES = (*WITHOUT_PROGRAMS, *(mode.value for mode in ProgramMode))


def render(status: Mapping[str, Json]) -> str:
    """Returns the metrics of one node."""
    lines: list[str] = []
    modes = {f'{{mode="{mode}"}}': int(status["mode"] == mode) for mode in MODES}
    metrics.add(lines, f"{PREFIX}mode", "gauge", modes)
    metrics.add(lines, f"{PREFIX}following", "gauge", {"": int(status["following"])})
    metrics.add(lines, f"{PREFIX}native_services", "gauge", {"": len(status["native"])})
    if status["mode"] in WITHOUT_PROGRAMS:
        return text(lines)
    for name in ("alive", "masqueraded"):
        metrics.add(lines, f"{PREFIX}sessions_{name}", "gauge", {"": status["sessions"][name]})
    metrics.add(lines, f"{PREFIX}maximum_sessions", "gauge", {"": status["maximum_sessions"]})
    metrics.add(lines, f"{PREFIX}services", "gauge", {"": len(status["services"])})
    metrics.add(lines, f"{PREFIX}source_ports_used", "gauge", ports(status, "ports_used"))
    metrics.add(lines, f"{PREFIX}source_ports", "gauge", ports(status, "ports"))
    for name, value in status["counters"].items():
        metrics.add(lines, f"{PREFIX}{name}_total", "counter", {"": value})
    metrics.add(lines, f"{PREFIX}packets_bypassed_total", "counter", {"": status["nft"]["bypassed"]})
    return text(lines)


def ports(status: Mapping[str, Json], key: str) -> dict[str, int]:
    """Returns samples by device and address."""
    return {
        f'{{device="{metrics.escape(name)}",address="{address}"}}': (
            device[key] if key == "ports" else device[key][address]
        )
        for name, device in status["devices"].items()
        if device["source"] is not None
        for address in device["ports_used"]
    }


def text(lines: list[str]) -> str:
    """Returns the exposition of its lines."""
    return "\n".join(lines) + "\n"
