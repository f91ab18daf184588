"""What sockops has on a node, seen from outside: by bpftool, by the file system and by traffic."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshaccel import metrics, record
from meshaccel.accelerators.sockops import NAME
from meshaccel.command import status_lines
from tests.kernel.inventory import Inventory, programs_of
from tests.kernel.topologies import Topology
from tests.support.connections import Connection, connected
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.fault_changes import Members

#: What the kernel itself puts into a bpffs.
OF_THE_KERNEL = {"maps.debug", "progs.debug"}
KINDS = {"maps": "map", "programs": "prog", "links": "link"}
#: The maps that say what sockops is to do; the others hold what came of it.
SAYING = ("control", "policies", "denied_networks", "relay_addresses")
RECORD = "record.json"
FILES = {"sockops.json", RECORD}
#: Waits unread in a connection while a run goes on.
QUEUED_BYTES = 100_000
ROUNDS = 4


def together(*inventories: Inventory) -> Inventory:
    """Return the objects of them all."""
    return Inventory(
        frozenset().union(*(each.programs for each in inventories)),
        frozenset().union(*(each.maps for each in inventories)),
        frozenset().union(*(each.links for each in inventories)),
    )


@dataclass(frozen=True)
class Seen:
    """A node at one moment."""

    mounted: bool
    #: What bpftool shows of what is pinned, by its path below the bpffs.
    pins: Mapping[str, Mapping[str, Any]]
    #: The ids of the programs at each cgroup.
    attached: Mapping[str, list[int]]
    files: Mapping[str, bytes]
    #: The entries of the maps in SAYING, and the sizes of all.
    said: Mapping[str, object]

    @property
    def joined(self) -> set[str]:
        """The cgroups that have programs."""
        return {name for name, programs in self.attached.items() if programs}

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return what bpftool shows of the pins of one kind."""
        return [found for path, found in self.pins.items() if kind_of(path) == kind]

    def inventory(self) -> Inventory:
        """Return the ids of the kernel's objects in here.

        Without the PROG_ARRAY, which the kernel leaks when somebody lists all maps as it goes away.
        """
        kinds = {
            kind: {found["id"] for found in self.of_kind(kind) if found.get("type") != "prog_array"}
            for kind in KINDS
        }
        attached = {program for programs in self.attached.values() for program in programs}
        return Inventory(
            frozenset(kinds["programs"] | attached), frozenset(kinds["maps"]), frozenset(kinds["links"])
        )

    def words(self) -> dict[str, object]:
        """Return all that has to come back when a change is undone; ids of new objects are new."""
        return {
            "mounted": self.mounted,
            "pins": sorted(self.pins),
            "attached": {name: len(programs) for name, programs in self.attached.items()},
            "files": {name: self.files[name] for name in FILES - {RECORD} if name in self.files},
            "said": self.said,
        }


def kind_of(path: str) -> str:
    """Return what is pinned at a path below the bpffs: the name of a directory of sockops."""
    return next(part for part in Path(path).parts if part in KINDS)


def look(node: Sockops, members: Members) -> Seen:
    """Look at a node, at each of these cgroups and at every file and pin."""
    bpffs, configuration = Path(node.paths.bpffs), Path(node.paths.configuration)
    pins = [path for path in bpffs.rglob("*") if not path.is_dir() and path.name not in OF_THE_KERNEL]
    names = [str(path.relative_to(bpffs)) for path in pins]
    saying = [path for path in pins if path.name in SAYING]
    answers = ask_bpftool(
        [f"{KINDS[kind_of(name)]} show pinned {bpffs / name}" for name in names]
        + [f"map dump pinned {path}" for path in saying]
    )
    shown = dict(zip(names, answers, strict=False))
    # A hash table has its own order each time.
    dumps = [sorted(entries, key=json.dumps) for entries in answers[len(names) :]]
    said = dict(zip([path.name for path in saying], dumps, strict=True))
    return Seen(
        bpffs.is_mount(),
        shown,
        {name: programs_of(cgroup) for name, cgroup in members.items()},
        {path.name: path.read_bytes() for path in configuration.rglob("*")},
        {"sizes": {name: found.get("max_entries") for name, found in shown.items()}, **said},
    )


def ask_bpftool(questions: Sequence[str]) -> list[Any]:
    """Return the answers of one bpftool to all questions."""
    if not questions:
        return []
    answers = json.loads(run(["bpftool", "-j", "batch", "file", "-"], standard_input="\n".join(questions)))
    return [answer["output"] for answer in answers]


def assert_nothing_unowned(node: Sockops, seen: Seen) -> None:
    """Everything that is there lies where sockops finds it again."""
    below = str(Path(node.paths.pins).relative_to(node.paths.bpffs) / NAME)
    assert [path for path in seen.pins if not path.startswith(f"{below}/")] == []
    programs = {found["id"] for found in seen.of_kind("programs")}
    linked = {found["prog_id"] for found in seen.of_kind("links")}
    for name, attached in seen.attached.items():
        assert set(attached) <= programs | linked, f"an unpinned program at {name}"


def assert_status_works(node: Sockops) -> None:
    """Everything that an operator can ask is answered."""
    status = node.status()
    assert status["state"] in {"present", "absent", "incomplete"}
    assert status_lines(NAME, status, node.paths)
    assert bool(metrics.render(status)) == (status["state"] == "present")
    assert record.read(node.paths).get(NAME, {}).get("phase") in {None, "applying", "done", "failed"}


class LiveConnection:
    """A connection that was there before a run, with bytes that nobody reads while it goes on."""

    def __init__(self, topology: Topology, connection: Connection) -> None:
        """Take an open connection and exchange something first, so that it is known by sockops."""
        self._topology = topology
        self._connection = connection
        connection.exchange(ROUNDS)

    @contextlib.contextmanager
    def unread(self) -> Iterator[None]:
        """Bytes wait in both directions meanwhile; then they are read, and more are exchanged."""
        self._connection.client.send(QUEUED_BYTES)
        self._connection.server.send(QUEUED_BYTES)
        yield
        self._connection.server.receive(QUEUED_BYTES)
        self._connection.client.receive(QUEUED_BYTES)
        self._connection.exchange(ROUNDS)
        exchange(self._topology)


def exchange(topology: Topology) -> None:
    """Exchange checked bytes by a connection of its own."""
    with connected(topology.client, topology.server, topology.address4) as connection:
        connection.exchange(ROUNDS)
