"""The benchmarks: each says what it runs, and on what."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from tests.bench.arms import OptIn, Route, TrafficArm
from tests.bench.mesh import mesh_arm, through_sidecars
from tests.bench.message_cost import message_cost
from tests.demo.mesh import Mesh
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.bench.results import Figures
    from tests.support.mesh_load import ClientMode


class Arm(Protocol):
    """One side of a comparison, with everything it needs running."""

    @property
    def cgroups(self) -> tuple[str, ...]:
        """The cgroups to accelerate in, below the cgroup2 mount."""


ArmKind = TypeVar("ArmKind", bound=Arm)


@dataclass(frozen=True)
class Case(Generic[ArmKind]):
    """One load; `measure` runs it on an arm for so many seconds."""

    label: str
    workload: str
    measure: Callable[[ArmKind, float], Figures]


@dataclass(frozen=True)
class Benchmark(Generic[ArmKind]):
    """A comparison of two arms that `make_arm` makes alike, of each case in turn.

    The first case is the one that the result's top level tells of.
    """

    name: str
    title: str
    make_arm: Callable[[str], AbstractContextManager[ArmKind]]
    cases: tuple[Case[ArmKind], ...]
    redirects: bool = True
    """Whether bytes must be redirected on the accelerated arm, or must not."""


KILOBYTE = 1024
CONNECTIONS = 16
MESSAGE_SIZES = (KILOBYTE, 64, 256, 4 * KILOBYTE, 16 * KILOBYTE)
WRITE_SIZES = (16 * KILOBYTE, KILOBYTE, 4 * KILOBYTE, 64 * KILOBYTE, 128 * KILOBYTE)


def traffic(
    label: str,
    mode: ClientMode,
    size: int,
    connections: int = CONNECTIONS,
) -> Case[TrafficArm]:
    """Return a case of the project's own load generator."""

    def measure(arm: TrafficArm, seconds: float) -> Figures:
        return arm.run(Client(mode, size=size, connections=connections, duration=seconds))

    plural = "s" if connections > 1 else ""
    workload = f"{mode}, {size} bytes, {connections} connection{plural}"
    return Case(label, workload, measure)


def pingpong(size: int) -> Case[TrafficArm]:
    """Return a case of requests and their echoes of one size."""
    return traffic(f"{size} B", "pingpong", size)


def stream(size: int) -> Case[TrafficArm]:
    """Return a case of a one-way stream written in pieces of one size."""
    return traffic(f"{size} B writes", "stream", size, connections=1)


def arm_factory(route: Route, opt_in: OptIn = OptIn.BOTH) -> Callable[[str], TrafficArm]:
    """Return what makes the arms of a benchmark over one route."""
    return functools.partial(TrafficArm, route=route, opt_in=opt_in)


BYSTANDER_CASES = (
    traffic("pingpong 1 KB", "pingpong", KILOBYTE),
    traffic("stream, 16 KB writes", "stream", 16 * KILOBYTE, connections=1),
    traffic("short connections", "connect", 64),
)

ALL: tuple[Benchmark[Any], ...] = (
    Benchmark(
        "sockops-envoy-http",
        "HTTP through two Envoy sidecars",
        mesh_arm,
        (
            Case(
                "1 KB answers",
                "wrk, Envoy, Envoy, nginx; 64 connections",
                through_sidecars(Mesh.run_http),
            ),
        ),
    ),
    Benchmark(
        "sockops-envoy-tcp",
        "TCP through two Envoy sidecars",
        mesh_arm,
        (
            Case(
                "1 KB there and back",
                "pingpong, Envoy, Envoy, echo server; 64 connections",
                through_sidecars(Mesh.run_tcp),
            ),
        ),
    ),
    Benchmark(
        "sockops-pingpong",
        "Request and reply within a pod",
        arm_factory(Route.LOOPBACK),
        tuple(pingpong(size) for size in MESSAGE_SIZES),
    ),
    Benchmark(
        "sockops-pingpong-pods",
        "Request and reply between two pods of a node",
        arm_factory(Route.BRIDGE),
        (pingpong(KILOBYTE),),
    ),
    Benchmark(
        "sockops-stream",
        "One-way stream within a pod",
        arm_factory(Route.LOOPBACK),
        tuple(stream(size) for size in WRITE_SIZES),
    ),
    Benchmark(
        "sockops-short-connections",
        "A connection for every request within a pod",
        arm_factory(Route.LOOPBACK),
        (traffic("64 B", "connect", 64),),
    ),
    Benchmark(
        "sockops-bystander",
        "A peer on another node: what acceleration costs what it cannot accelerate",
        arm_factory(Route.NODES, OptIn.CLIENT),
        BYSTANDER_CASES,
        redirects=False,
    ),
    Benchmark(
        "sockops-bystander-pod",
        "A peer in the same pod that is not opted in",
        arm_factory(Route.LOOPBACK, OptIn.CLIENT),
        BYSTANDER_CASES,
        redirects=False,
    ),
    Benchmark(
        "sockops-message-cost",
        "Time in the BPF program for a message, by the kernel's own count",
        arm_factory(Route.LOOPBACK),
        tuple(
            Case(case.label, case.workload, message_cost(case.measure))
            for case in (pingpong(64), stream(16 * KILOBYTE))
        ),
    ),
)

BY_NAME = {benchmark.name: benchmark for benchmark in ALL}
