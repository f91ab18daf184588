"""Other work on the machine: programs that want all of every processor, all the time."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tests.support.cgroups import TestCgroup
from tests.support.processes import HERE, ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_PROCESSOR = 2
BUSY_LOOP = ("sh", "-c", "while :; do :; done")


@contextlib.contextmanager
def competitors() -> Iterator[None]:
    """Run pure processor work in a cgroup of its own meanwhile, twice what the processors can do."""
    with TestCgroup("bench-competitors") as cgroup, busy_loops(Placement(cgroup=cgroup)):
        yield


@contextlib.contextmanager
def busy_loops(placement: Placement = HERE) -> Iterator[list[ManagedProcess]]:
    """Run the same without a cgroup, or in any; raises ProcessError when one did not last.

    Each is a session of its own, so that a kernel that shares processors out by session (autogroup)
    gives each as much as it gives one that shares them out by process.
    """
    with contextlib.ExitStack() as resources:
        loops = [
            resources.enter_context(ManagedProcess(BUSY_LOOP, placement))
            for _ in range(PER_PROCESSOR * (os.cpu_count() or 1))
        ]
        yield loops
        for loop in loops:
            if not loop.is_running():
                raise loop.failure("ended while it was to keep a processor busy")
