"""What is measured, and what others have published about the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.demo.mesh import Mesh, Sample


@dataclass(frozen=True)
class Published:
    """Ratios, accelerated to not, that somebody published for a mesh of theirs; keys as in METRICS."""

    source: str
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Workload:
    """A load on a mesh."""

    name: str
    title: str
    path: str
    """The way of a request, for the reader of the report."""
    run: Callable[[Mesh, int], Sample]
    published: tuple[Published, ...] = ()


WORKLOADS = (
    Workload(
        name="envoy-http",
        title="HTTP 1 KB, two sidecars",
        path="wrk → Envoy → Envoy → nginx, 64 connections, 1 KB answers",
        run=Mesh.run_http,
        published=(
            Published("Alibaba ASM", {"qps": 1.18, "latency_mean": 0.85}),
            Published("Kmesh", {"qps": 1.18, "latency_mean": 0.85}),
            Published("NetEase", {"latency_mean": 0.90}),
        ),
    ),
    Workload(
        name="envoy-tcp",
        title="TCP 1 KB, two sidecars",
        path="load → Envoy → Envoy → echo server, 64 connections, 1 KB there and back",
        run=Mesh.run_tcp,
        published=(Published("Alibaba ASM", {"qps": 1.57, "latency_mean": 0.64}),),
    ),
    Workload(
        name="redis-get",
        title="Redis GET 1 KB, direct",
        path="redis-benchmark → Redis, pod to pod without sidecars, 64 connections",
        run=lambda mesh, seconds: mesh.run_redis("get", seconds),
    ),
    Workload(
        name="redis-set",
        title="Redis SET 1 KB, direct",
        path="redis-benchmark → Redis, pod to pod without sidecars, 64 connections",
        run=lambda mesh, seconds: mesh.run_redis("set", seconds),
    ),
    Workload(
        name="nginx-http",
        title="nginx 1 KB, direct",
        path="wrk → nginx, pod to pod without sidecars, 64 connections, 1 KB answers",
        run=Mesh.run_direct_http,
    ),
)
