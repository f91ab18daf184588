"""The mesh of the demonstration as an arm: load and servers behind two Envoy sidecars."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.demo.measurement import figures_of
from tests.demo.mesh import Mesh
from tests.support.directories import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.results import Figures
    from tests.demo.mesh import Sample

SHORTEST_RUN = 1
"""In seconds; the load generators take whole ones."""


class FailedRequestsError(RuntimeError):
    """Some requests failed, so the figures of the others are not what the case is about."""


@contextlib.contextmanager
def mesh_arm(label: str) -> Iterator[Mesh]:
    """Run a mesh with its configuration and logs in a directory of its own."""
    with (
        temporary_directory("mesh") as directory,
        Mesh(label, Path(directory)) as mesh,
    ):
        yield mesh


def through_sidecars(
    load: Callable[[Mesh, int], Sample],
) -> Callable[[Mesh, float], Figures]:
    """Return a measurement of a load of the mesh, over connections that are new all the way."""

    def measure(mesh: Mesh, seconds: float) -> Figures:
        mesh.wait_for_empty_pools()
        sample = load(mesh, max(SHORTEST_RUN, round(seconds)))
        if sample.load.errors:
            raise FailedRequestsError(f"mesh {mesh.name}: {sample.load.errors} requests failed")
        return figures_of(sample)

    return measure
