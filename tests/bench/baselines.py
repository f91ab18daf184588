"""What the accelerated arm may be compared with other than plain TCP, switched on for some cgroups."""

from __future__ import annotations

import contextlib
import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.bpffs import own_bpffs
from tests.support.bpftool import load_all
from tests.support.cgroups import cgroup2_mount
from tests.support.mesh_load import ROOT
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.model import Baseline

OBJECT = ROOT / "build" / "bench" / "classic.bpf.o"
CONNECT_PROGRAM = "remember_socket"
SOCKETS = "sockets"
CLASSIC_BYTES = "classic_bytes"


Entry = dict[str, Any]
"""An entry of a map, as bpftool dumps it."""


class Way(enum.IntEnum):
    """The entries of the map `classic_bytes`."""

    TCP = 0
    REDIRECTED = 1


@dataclass(frozen=True)
class Classic:
    """The classic variant while it is attached."""

    maps: Path

    def redirected_share(self) -> float:
        """Return the part of the bytes seen by the message program that was redirected; 0 of none."""
        entries = json.loads(run(["bpftool", "-j", "map", "dump", "pinned", str(self.maps / CLASSIC_BYTES)]))
        return redirected_share(entries)


def redirected_share(entries: Sequence[Entry]) -> float:
    """Return the same from the entries of the map: for each way the bytes by processor."""
    counts = [sum(value["value"] for value in entry["formatted"]["values"]) for entry in entries]
    total = sum(counts)
    return counts[Way.REDIRECTED] / total if total else 0.0


@contextlib.contextmanager
def baseline(kind: Baseline, cgroups: Sequence[str]) -> Iterator[Classic | None]:
    """Make these cgroups, paths below the cgroup2 mount, what is compared with.

    Yields what tells of redirection, if the baseline redirects at all.
    Connections made meanwhile between sockets of these cgroups are the ones it acts on.
    """
    if kind == "off":
        yield None
        return
    with own_bpffs() as directory:
        programs, maps = directory / "programs", directory / "maps"
        programs.mkdir()
        maps.mkdir()
        load_all(OBJECT, programs, maps)
        run(
            [
                *("bpftool", "prog", "attach", "pinned", str(programs / f"{kind}_message")),
                *("msg_verdict", "pinned", str(maps / SOCKETS)),
            ]
        )
        with contextlib.ExitStack() as attachments:
            for cgroup in cgroups:
                attachments.enter_context(_attached(programs / CONNECT_PROGRAM, cgroup))
            yield Classic(maps) if kind == "classic" else None


@contextlib.contextmanager
def _attached(program: Path, cgroup: str) -> Iterator[None]:
    words = [str(cgroup2_mount() / cgroup), "cgroup_sock_ops", "pinned", str(program)]
    run(["bpftool", "cgroup", "attach", *words, "multi"])
    try:
        yield
    finally:
        run(["bpftool", "cgroup", "detach", *words])
