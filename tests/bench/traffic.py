"""Cases of the project's own load generator."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.bench.arms import OptIn, Route, TrafficArm
from tests.bench.model import Case
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.results import Figures

CONNECTIONS = 16


def traffic(label: str, client: Client) -> Case[TrafficArm]:
    """Return a case of what a client does, for as long as a run is."""
    plural = "s" if client.connections > 1 else ""
    workload = f"{client.mode}, {client.size} bytes, {client.connections} connection{plural}"
    return Case(label, workload, measurement(client))


def measurement(client: Client) -> Callable[[TrafficArm, float], Figures]:
    """Return what runs a client on an arm, for as long as a run is."""

    def measure(arm: TrafficArm, seconds: float) -> Figures:
        return arm.run(replace(client, duration=seconds))

    return measure


def pingpong(size: int) -> Case[TrafficArm]:
    """Return a case of requests and their echoes of one size."""
    return traffic(f"{size} B", Client("pingpong", size, CONNECTIONS))


def stream(size: int) -> Case[TrafficArm]:
    """Return a case of a one-way stream written in pieces of one size."""
    return traffic(f"{size} B writes", Client("stream", size))


def arm_factory(route: Route, opt_in: OptIn = OptIn.BOTH) -> Callable[[str], TrafficArm]:
    """Return what makes the arms of a benchmark over one route."""
    return functools.partial(TrafficArm, route=route, opt_in=opt_in)
