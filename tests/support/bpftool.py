"""What BPF objects the kernel has, read through bpftool, so that a test can say what is left."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NANOSECONDS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True)
class CgroupAttachment:
    """A program attached to a cgroup."""

    cgroup: str
    program_id: int
    attach_type: str
    name: str


@dataclass(frozen=True)
class BpfObjects:
    """The BPF objects of the kernel at one moment: names by id, and the cgroup attachments."""

    programs: Mapping[int, str]
    maps: Mapping[int, str]
    links: Mapping[int, int]
    """The program of each link, 0 when it has none."""
    attachments: frozenset[CgroupAttachment]

    def is_empty(self) -> bool:
        """Whether there is no object at all in here."""
        return not (self.programs or self.maps or self.links or self.attachments)

    def new_since(self, before: BpfObjects) -> BpfObjects:
        """Return the objects that were not there `before`."""
        return BpfObjects(
            {key: name for key, name in self.programs.items() if key not in before.programs},
            {key: name for key, name in self.maps.items() if key not in before.maps},
            {key: program for key, program in self.links.items() if key not in before.links},
            self.attachments - before.attachments,
        )

    def of_names(self, names: Sequence[str]) -> BpfObjects:
        """Return the objects of these names, with the links and attachments of those programs.

        The kernel keeps 15 characters of a name, so 15 are compared. Other programs on the machine
        load and unload meanwhile: a test of what is left looks at its own names.
        """
        known = {name[:15] for name in names}
        programs = {key: name for key, name in self.programs.items() if name in known}
        return BpfObjects(
            programs,
            {key: name for key, name in self.maps.items() if name in known},
            {key: program for key, program in self.links.items() if program in programs},
            frozenset(item for item in self.attachments if item.program_id in programs),
        )


@dataclass(frozen=True)
class RunStatistics:
    """What the kernel counted of a program while kernel.bpf_stats_enabled was 1."""

    seconds: float
    runs: int

    def __sub__(self, earlier: RunStatistics) -> RunStatistics:
        return RunStatistics(self.seconds - earlier.seconds, self.runs - earlier.runs)


def snapshot() -> BpfObjects:
    """Return all BPF objects of the kernel as they are now."""
    return BpfObjects(
        {item["id"]: item.get("name", "") for item in _query("prog", "show")},
        {item["id"]: item.get("name", "") for item in _query("map", "show")},
        {item["id"]: item.get("prog_id", 0) for item in _query("link", "show")},
        frozenset(_cgroup_attachments()),
    )


def program_id(pin: Path) -> int:
    """Return the id of a pinned program."""
    return int(json.loads(run(["bpftool", "-j", "prog", "show", "pinned", str(pin)]))["id"])


def socket_map(pin: Path) -> dict[int, int]:
    """Return which sockets, by their cookies, are where in a pinned SOCKMAP with values of eight bytes."""
    entries = _query("map", "dump", "pinned", str(pin))
    return {
        _number(entry["key"]): _number(entry["value"]) for entry in entries if "error" not in entry["value"]
    }


def run_statistics(program_type: str) -> dict[int, RunStatistics]:
    """Return by program id what the kernel has counted, of the programs it has counted at all."""
    return {
        item["id"]: RunStatistics(item["run_time_ns"] / NANOSECONDS_PER_SECOND, item["run_cnt"])
        for item in _query("prog", "show")
        if item["type"] == program_type and "run_cnt" in item
    }


def load_all(object_file: Path, programs: Path, maps: Path) -> None:
    """Load every program of an object file, pinned below `programs`, its maps below `maps`."""
    run(["bpftool", "prog", "loadall", str(object_file), str(programs), "pinmaps", str(maps)])


def _cgroup_attachments() -> list[CgroupAttachment]:
    return [
        CgroupAttachment(tree["cgroup"], item["id"], item["attach_type"], item.get("name", ""))
        for tree in _query("cgroup", "tree")
        for item in tree["programs"]
    ]


def _number(written: Sequence[str]) -> int:
    """Return the number of bytes as bpftool writes them."""
    return int.from_bytes((int(byte, 16) for byte in written), sys.byteorder)


def _query(*words: str) -> list[dict[str, Any]]:
    answer = json.loads(run(["bpftool", "-j", *words]) or "[]")
    # bpftool answers a failed query with an object that holds the error.
    if isinstance(answer, dict):
        raise RuntimeError(f"bpftool {' '.join(words)}: {answer.get('error', answer)}")
    return list(answer)
