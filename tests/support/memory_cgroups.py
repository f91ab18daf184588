"""Groups of processes with little memory, in whichever hierarchy the kernel has the memory controller."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.cgroups import NAME_PREFIX, cgroup2_mount, remove_cgroup

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@dataclass(frozen=True)
class Controller:
    """What the kernel counts, and the files that say how much."""

    mount: Path
    limit: str
    usage: str


@dataclass(frozen=True)
class MemoryCgroup:
    """A group. On version 1 a process is in it beside its cgroup of cgroup2, on version 2 instead."""

    path: Path
    controller: Controller

    def add(self, process_id: int) -> None:
        """Move a process in here; what it has already stays charged to where it was."""
        (self.path / "cgroup.procs").write_text(str(process_id), encoding="ascii")

    def limit(self, size: int) -> None:
        """Let the group have `size` bytes; raises OSError (EBUSY) when it cannot do with so little."""
        (self.path / self.controller.limit).write_text(str(size), encoding="ascii")

    def usage(self) -> int:
        """Return how many bytes the group has."""
        return int((self.path / self.controller.usage).read_text(encoding="ascii"))


def version1_mount() -> Path | None:
    """Return where cgroup version 1 has its memory controller mounted; None on version 2 alone."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, file_system = line.partition(" - ")
        kind, _, options = file_system.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(mount.split()[4])
    return None


@contextlib.contextmanager
def memory_cgroup(size: int) -> Iterator[MemoryCgroup]:
    """Make a group that gets `size` bytes for its processes and for what the kernel has for them."""
    version1 = version1_mount()
    if version1 is None:
        controller = Controller(cgroup2_mount(), "memory.max", "memory.current")
    else:
        controller = Controller(version1, "memory.limit_in_bytes", "memory.usage_in_bytes")
    with _limited(controller, size) as group:
        yield group


@contextlib.contextmanager
def tcp_memory_cgroup(size: int) -> Iterator[MemoryCgroup]:
    """Make a group whose TCP sockets get `size` bytes, and whose processes get all they want.

    Raises FileNotFoundError on version 2, which does not tell the two apart.
    """
    version1 = version1_mount()
    if version1 is None:
        raise FileNotFoundError("no memory controller of cgroup version 1")
    files = ("memory.kmem.tcp.limit_in_bytes", "memory.kmem.tcp.usage_in_bytes")
    with _limited(Controller(version1, *files), size) as group:
        yield group


@contextlib.contextmanager
def _limited(controller: Controller, size: int) -> Iterator[MemoryCgroup]:
    path = controller.mount / f"{NAME_PREFIX}{os.getpid()}-{next(_numbers)}-memory"
    path.mkdir()
    try:
        group = MemoryCgroup(path, controller)
        group.limit(size)
        yield group
    finally:
        remove_cgroup(path)
