"""What the tests of bpf_program and bpf_map share: small BPF objects, and a node of their own."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from meshaccel.bpf import attach, maps, ownership
from tests.kernel import compiled
from tests.support.accelerator import node_paths
from tests.support.directories import temporary_directory
from tests.support.modules import import_part, load_module, run_module
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.paths import NodePaths
    from tests.support.cgroups import TestCgroup

PIN = "count"
#: The maps that the program of wish() uses.
MAPS = ("connections", "events", "skipped_ports")


def wish(version: int, *cgroups: TestCgroup, **settings: object) -> dict[str, Any]:
    """Return parameters of bpf_program: the program that counts connections, in these cgroups."""
    return {
        "state": "present",
        "pin": PIN,
        "object": str(compiled.count_connections(version)),
        "program": "count_connections",
        "cgroups": [str(cgroup.path) for cgroup in cgroups],
        **settings,
    }


def link_name(cgroup: TestCgroup) -> str:
    """Return the pin of the link to a cgroup."""
    return f"{PIN}_links/{cgroup.identifier}"


@dataclasses.dataclass(frozen=True)
class Node:
    """Places of a test's own, for the modules that are run on them."""

    paths: NodePaths

    def run(self, module: str, *, check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        """Run a module of `library/` on these places and return its result."""
        places = import_part("paths").NodePaths(**dataclasses.asdict(self.paths))
        with mock.patch.object(load_module(module), "NodePaths", return_value=places):
            return run_module(module, check_mode=check_mode, **parameters)

    def done(self, module: str, *, check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        """Run a module that has to succeed."""
        result = self.run(module, check_mode=check_mode, **parameters)
        assert "failed" not in result, result["msg"]
        return result

    def pin(self, name: str) -> Path:
        """Return the path of a pin of ours."""
        return Path(self.paths.pins, name)

    def pins(self) -> dict[str, int]:
        """Return all pins of ours with the kernel's ids of what they pin: equal when nothing changed."""
        return {name: self.identifier(name) for name in ownership.names(self.paths)}

    def counted(self, name: str = f"{PIN}_maps/connections") -> list[int]:
        """Return what each version of the program has counted."""
        with maps.Map.pinned(str(self.pin(name)), ctypes.c_uint32, ctypes.c_uint64) as found:
            return [value.value for _, value in found.items()]

    def identifier(self, name: str) -> int:
        """Return the kernel's id of what is pinned under a name."""
        with ownership.opened(str(self.pin(name))) as descriptor:
            kind = ownership.kind_of(descriptor)
            if kind is ownership.Kind.PROGRAM:
                return attach.program_id(descriptor)
            if kind is ownership.Kind.MAP:
                return attach.map_information(descriptor).identifier
            return attach.link_information(descriptor).identifier


@contextlib.contextmanager
def own_node() -> Iterator[Node]:
    """Give a node with nothing of meshaccel on it, not even a bpffs; take all of it away at the end."""
    with temporary_directory("node") as name:
        node = Node(node_paths(Path(name), Path(name) / "bpffs"))
        try:
            yield node
        finally:
            if Path(node.paths.bpffs).is_mount():
                run(["umount", node.paths.bpffs])
