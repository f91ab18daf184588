"""The benchmarks that count instructions. Another load is another case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tests.bench.arms import Route
from tests.bench.cells import KILOBYTE
from tests.bench.counting import director
from tests.bench.counting.clock import instruction_cost
from tests.bench.counting.director import Entrance, director_case
from tests.bench.counting.in_turn import InTurn
from tests.bench.model import ArmKind, Benchmark, Case, MeasuredArm
from tests.bench.runner import Schedule, run_benchmark
from tests.bench.traffic import arm_factory, traffic
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.results import BenchmarkResult

PAIRS = 5
SECONDS = 0.5


class Counting(Protocol):
    """A benchmark that counts in the guest it is run in."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def pairs(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    def run(self, pairs: int, seconds: float, report: Callable[[str], None]) -> BenchmarkResult:
        """Measure so many pairs of runs of so many seconds; `report` is told how far it is."""


@dataclass(frozen=True)
class OffAndOn(Benchmark[ArmKind]):
    """Sockops off and on."""

    def run(self, pairs: int, seconds: float, report: Callable[[str], None]) -> BenchmarkResult:
        """Measure; raises NotAsPromisedError and what the accelerator raises."""
        return run_benchmark(self, Schedule(pairs, seconds, "off"), report)


def counted(case: Case[MeasuredArm]) -> Case[MeasuredArm]:
    """Return the same load as a case that counts instructions; its measurement must find `qps`."""
    return Case(case.label, case.workload, instruction_cost(case.measure))


ALL: tuple[Counting, ...] = (
    OffAndOn[Any](
        "sockops-instructions",
        "Instructions within a pod: kernel, client and server together",
        arm_factory(Route.LOOPBACK),
        (
            counted(traffic("round trip of 64 B", Client("pingpong", 64))),
            counted(traffic("round trip of 16 KB", Client("pingpong", 16 * KILOBYTE))),
            counted(traffic("short connection", Client("connect", 64))),
        ),
        pairs=PAIRS,
        seconds=SECONDS,
    ),
    InTurn(
        "ipvs-short-connections",
        "Instructions through a director: client, director and backend together",
        {
            "routed": director.routed,
            "off": director.native,
            "on": partial(director.bpf, fast_path=False),
            "fast_path": partial(director.bpf, fast_path=True),
        },
        reference="routed",
        against="off",
        compared={"on": "", "fast_path": ", fast path"},
        cases=(
            director_case("short connection", Client("connect", 64), Entrance.NODE_PORT),
            director_case("short connection", Client("connect", 64), Entrance.CLUSTER_ADDRESS),
            director_case("round trip of 64 B", Client("pingpong", 64), Entrance.NODE_PORT),
            director_case("round trip of 64 B", Client("pingpong", 64), Entrance.CLUSTER_ADDRESS),
            director_case("write of 16 KB", Client("stream", 16 * KILOBYTE), Entrance.NODE_PORT),
        ),
        pairs=PAIRS,
        seconds=SECONDS,
    ),
)

BY_NAME = {benchmark.name: benchmark for benchmark in ALL}
