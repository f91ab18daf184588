"""The benchmarks that count instructions. Another load is another case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from tests.bench.arms import Route
from tests.bench.cells import KILOBYTE
from tests.bench.counting.clock import instruction_cost
from tests.bench.model import Benchmark, Case
from tests.bench.traffic import arm_factory, traffic
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from tests.bench.model import Arm

ArmKind = TypeVar("ArmKind", bound="Arm")

PAIRS = 5
SECONDS = 0.5


def counted(case: Case[ArmKind]) -> Case[ArmKind]:
    """Return the same load as a case that counts instructions; its measurement must find `qps`."""
    return Case(case.label, case.workload, instruction_cost(case.measure))


ALL: tuple[Benchmark[Any], ...] = (
    Benchmark(
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
)

BY_NAME = {benchmark.name: benchmark for benchmark in ALL}
