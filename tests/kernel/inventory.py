"""The kernel's objects behind an installation, so that a test can say when they are gone."""

from __future__ import annotations

import ctypes
import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshaccel.accelerators.sockops.observe import Places
from tests.kernel.observation import wait_until
from tests.support.processes import run

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups
    from tests.support.cgroups import TestCgroup

#: Within this time the kernel frees a map that nothing holds, and all that waits in its sockets.
KERNEL_FREES_SECONDS = 1.5


@dataclass(frozen=True)
class Inventory:
    """The ids of an installation's programs, maps and links."""

    programs: frozenset[int]
    maps: frozenset[int]
    links: frozenset[int]

    @classmethod
    def of(cls, node: Sockops) -> Inventory:
        """Look at what is pinned, and at what the pinned programs use without a pin of its own."""
        places = Places.of(node.paths)
        programs = [pinned("prog", path) for path in Path(places.versions).glob("*/*")]
        maps = [pinned("map", path) for path in Path(places.maps).iterdir()]
        links = [pinned("link", path) for path in Path(places.links).iterdir()]
        used = {identifier for program in programs for identifier in program["map_ids"]}
        return cls(
            frozenset(program["id"] for program in programs),
            frozenset({found["id"] for found in maps} | used),
            frozenset(link["id"] for link in links),
        )

    def remaining(self) -> Inventory:
        """Return those of them that the kernel still has."""
        return Inventory(
            self.programs & identifiers("prog"),
            self.maps & identifiers("map"),
            self.links & identifiers("link"),
        )

    def assert_gone(self) -> None:
        """The kernel frees them all; some only after everybody on another processor is done."""
        nothing = Inventory(frozenset(), frozenset(), frozenset())
        try:
            wait_until(lambda: self.remaining() == nothing, "the kernel's objects freed")
        except TimeoutError as error:
            raise AssertionError(f"the kernel still has {self.remaining()}") from error


def identifiers(kind: str) -> set[int]:
    """Return the ids of all programs, maps or links that the kernel has.

    bpftool would open each of them to say more. Closing a PROG_ARRAY that nobody else has open
    makes the kernel clear it, and twice at once makes it leak: prog_array_map_clear() takes a
    reference for each time but queues one work.
    """
    next_identifier = getattr(ctypes.CDLL("libbpf.so.1", use_errno=True), f"bpf_{kind}_get_next_id")
    found: set[int] = set()
    identifier = ctypes.c_uint32()
    while next_identifier(identifier, ctypes.byref(identifier)) == 0:
        found.add(identifier.value)
    if ctypes.get_errno() != errno.ENOENT:
        raise OSError(ctypes.get_errno(), f"no list of every {kind}")
    return found


def pinned(kind: str, path: Path) -> dict[str, Any]:
    """Return what bpftool says of a pin."""
    found: dict[str, Any] = json.loads(run(["bpftool", "-j", kind, "show", "pinned", str(path)]))
    return found


def programs_of(cgroup: TestCgroup) -> list[int]:
    """Return the ids of the programs attached to a cgroup itself."""
    shown = json.loads(run(["bpftool", "-j", "cgroup", "show", str(cgroup.path)]).strip() or "[]")
    return [item["id"] for item in shown]


def assert_untouched(node: Sockops, cgroups: Cgroups) -> None:
    """Nothing of sockops is on the node: no file, no mount, no program at its cgroups.

    The empty directory for files is the node runtime's, and goes with that.
    """
    paths = node.paths
    assert list(Path(paths.configuration).rglob("*")) == []
    assert not Path(paths.runtime).exists()
    assert not Path(paths.bpffs).is_mount()
    assert list(Path(paths.bpffs).iterdir()) == []
    assert programs_of(cgroups.client) == programs_of(cgroups.server) == []
