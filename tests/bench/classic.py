"""The classic, tuple-keyed variant, switched on for some cgroups as a comparison."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.bpffs import own_bpffs
from tests.support.bpftool import load_all
from tests.support.cgroups import cgroup2_mount
from tests.support.mesh_load import ROOT
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

OBJECT = ROOT / "build" / "bench" / "classic.bpf.o"
MESSAGE_PROGRAM = "classic_message"
CONNECT_PROGRAM = "classic_connect"
SOCKETS = "classic_sockets"


@contextlib.contextmanager
def classic(cgroups: Sequence[str]) -> Iterator[None]:
    """Redirect between sockets made in these cgroups, paths below the cgroup2 mount, meanwhile."""
    with own_bpffs() as directory:
        programs, maps = directory / "programs", directory / "maps"
        programs.mkdir()
        maps.mkdir()
        load_all(OBJECT, programs, maps)
        run(
            [
                *("bpftool", "prog", "attach", "pinned", str(programs / MESSAGE_PROGRAM)),
                *("msg_verdict", "pinned", str(maps / SOCKETS)),
            ]
        )
        with contextlib.ExitStack() as attachments:
            for cgroup in cgroups:
                attachments.enter_context(_attached(programs / CONNECT_PROGRAM, cgroup))
            yield


@contextlib.contextmanager
def _attached(program: Path, cgroup: str) -> Iterator[None]:
    words = [str(cgroup2_mount() / cgroup), "cgroup_sock_ops", "pinned", str(program)]
    run(["bpftool", "cgroup", "attach", *words, "multi"])
    try:
        yield
    finally:
        run(["bpftool", "cgroup", "detach", *words])
