"""sockops switched on for the cgroups of a test, beside whatever the machine itself has of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.paths import NodePaths
from meshaccel.system import cgroups as node_cgroups
from tests.support.bpffs import own_bpffs
from tests.support.directories import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
OBJECT = ROOT / "build" / "bpf" / "sockops.bpf.o"


def node_paths(directory: Path, bpffs: Path) -> NodePaths:
    """Return an installation whose every place is the test's own."""
    return NodePaths(
        configuration=str(directory / "configuration"),
        library=str(directory / "library"),
        bpffs=str(bpffs),
        pins=str(bpffs / "meshaccel"),
        runtime=str(directory / "runtime"),
        command=str(directory / "command"),
        units=str(directory / "units"),
    )


@contextlib.contextmanager
def accelerated(cgroups: Sequence[str], **settings: object) -> Iterator[Sockops]:
    """Accelerate connections between these cgroups, paths below the cgroup2 mount, meanwhile.

    `settings` are role variables without their prefix, such as `ports` or `receive_memory_limit`.
    What it yields answers for status and counters. Raises MeshaccelError when the node cannot.
    """
    with (
        temporary_directory("node") as name,
        own_bpffs() as bpffs,
    ):
        node = Sockops(node_paths(Path(name), bpffs), node_cgroups.hierarchy(), str(OBJECT))
        present = node.parse({"state": "present", "cgroups": list(cgroups), **settings})
        try:
            node.converge(present)
            yield node
        finally:
            node.converge(node.parse({"state": "absent"}))
