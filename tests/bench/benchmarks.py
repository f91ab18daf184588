"""The benchmarks: each says what it runs, and on what."""

from __future__ import annotations

from typing import Any

from tests.bench.arms import OptIn, Route
from tests.bench.cells import KILOBYTE
from tests.bench.grid import GRID
from tests.bench.mesh import mesh_arm, through_sidecars
from tests.bench.message_cost import message_cost
from tests.bench.model import Benchmark, Case
from tests.bench.traffic import CONNECTIONS, arm_factory, pingpong, stream, traffic
from tests.demo.mesh import Mesh
from tests.support.mesh_load import Client

MESSAGE_SIZES = (KILOBYTE, 64, 256, 4 * KILOBYTE, 16 * KILOBYTE)
WRITE_SIZES = (16 * KILOBYTE, KILOBYTE, 4 * KILOBYTE, 64 * KILOBYTE, 128 * KILOBYTE)

BYSTANDER_CASES = (
    traffic("pingpong 1 KB", Client("pingpong", KILOBYTE, CONNECTIONS)),
    traffic("stream, 16 KB writes", Client("stream", 16 * KILOBYTE)),
    traffic("short connections", Client("connect", 64, CONNECTIONS)),
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
        (traffic("64 B", Client("connect", 64, CONNECTIONS)),),
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
        # What the kernel counts for an empty program is what counting itself takes.
        baseline="empty",
    ),
    GRID,
)

BY_NAME = {benchmark.name: benchmark for benchmark in ALL}
