"""The grid: whether there is any load that the accelerator makes slower."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tests.bench.arms import Route, TrafficArm
from tests.bench.cells import ALL_CELLS, KILOBYTE, MEGABYTE
from tests.bench.competitors import competitors
from tests.bench.model import Benchmark, Case
from tests.bench.traffic import arm_factory, measurement
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from tests.bench.cells import Cell, Condition

PHASES = {
    64: (200, 512 * KILOBYTE),
    KILOBYTE: (200, 4 * MEGABYTE),
    16 * KILOBYTE: (100, 4 * MEGABYTE),
    128 * KILOBYTE: (20, 8 * MEGABYTE),
    MEGABYTE: (4, 8 * MEGABYTE),
}
"""By message size the requests, and the bytes of the burst, of a mixed load: some milliseconds each."""
BESIDE: dict[Condition, Callable[[], AbstractContextManager[None]]] = {
    "idle": contextlib.nullcontext,
    "busy": competitors,
}


def client_of(cell: Cell) -> Client:
    """Return the client that makes a cell's load."""
    if cell.pattern != "mixed":
        return Client(cell.pattern, cell.size, cell.connections)
    requests, burst = PHASES[cell.size]
    return Client("mixed", cell.size, cell.connections, requests=requests, burst=burst)


def grid_case(cell: Cell) -> Case[TrafficArm]:
    """Return the case of a cell."""
    client = client_of(cell)
    workload = f"{cell.pattern}, {cell.size} bytes, {cell.connections} connections, {cell.condition}"
    return Case(cell.label, workload, measurement(client), BESIDE[cell.condition], cell)


GRID = Benchmark(
    "sockops-grid",
    "Every kind of load within a pod: is any slower?",
    arm_factory(Route.LOOPBACK),
    tuple(grid_case(cell) for cell in ALL_CELLS),
    # Even numbers, so that each arm goes first as often. In four pairs chance alone puts some of ninety
    # cells beyond the limits; so those are looked at longer.
    pairs=4,
    seconds=0.5,
    again=30,
)
