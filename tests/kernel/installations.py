"""A private sockops that a test converges itself, from nothing to nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from meshaccel.accelerators.sockops import plan
from meshaccel.accelerators.sockops.service import Sockops
from meshaccel.engine import Result
from meshaccel.system import cgroups as node_cgroups
from tests.support.accelerator import OBJECT, node_paths
from tests.support.directories import temporary_directory
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ABSENT = {"state": "absent"}


@contextlib.contextmanager
def installation(*, object_path: Path = OBJECT) -> Iterator[Sockops]:
    """Give a node with nothing of sockops on it, not even a bpffs; take everything off at the end."""
    with temporary_directory("node") as directory, temporary_directory("bpffs") as bpffs:
        paths = node_paths(Path(directory), Path(bpffs))
        node = Sockops(paths, node_cgroups.hierarchy(), str(object_path))
        try:
            yield node
        finally:
            # The test's connections are closed by now: no message is under way to wait for.
            with mock.patch.object(plan, "SETTLE_SECONDS", 0.0):
                absent(node)
            # The test may have mounted it itself, and then it is not meshaccel's to unmount.
            if Path(paths.bpffs).is_mount():
                run(["umount", paths.bpffs])


def present(node: Sockops, cgroups: Sequence[object], **settings: object) -> Result:
    """Converge to these cgroups, with role variables without their prefix."""
    return node.converge(node.parse({"state": "present", "cgroups": list(cgroups), **settings}))


def absent(node: Sockops) -> Result:
    """Take sockops off the node."""
    return node.converge(node.parse(ABSENT))
