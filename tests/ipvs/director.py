"""ipvs_bpf on the lab's director, with places of its own; no daemon follows."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from meshaccel.accelerators.ipvs_bpf import flow_table, observe, sessions
from meshaccel.accelerators.ipvs_bpf.service import IpvsBpf, IpvsResult
from meshaccel.system import systemd
from meshaccel.system.network_namespaces import entered
from tests.support.accelerator import node_paths
from tests.support.bpffs import own_bpffs
from tests.support.directories import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.ipvs_bpf.sessions import Table
    from tests.ipvs.lab import Lab

OBJECT = Path(__file__).resolve().parents[2] / "build" / "bpf" / "ipvs_bpf.bpf.o"
#: What a test waits for is seconds, not minutes.
QUICK = {"observe_seconds": 1, "drain_seconds": 30}


@dataclass
class AcceleratedDirector:
    """The accelerator on a director, by its own service."""

    lab: Lab
    service: IpvsBpf
    settings: dict[str, Any] = field(default_factory=dict)

    def converge(self, **changes: object) -> IpvsResult:
        """Make it as wished: `settings`, and for this once `changes`; role variables without their prefix."""
        wish = self.service.parse({"mode": "bpf", "follow": "all", **QUICK, **self.settings, **changes})
        with self.inside():
            return self.service.converge(wish)

    def remove(self) -> IpvsResult:
        """Take it off, with whatever is still open."""
        return self.converge(state="absent", drain_seconds=0)

    def sessions(self) -> list[sessions.Session]:
        """Return the sessions in the table, by the product's own reading."""
        return list(sessions.sessions(self.flows()))

    def flows(self) -> Table:
        """Return the table of flows."""
        with self.inside():
            return flow_table.read(observe.places(self.service.paths))

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Work in the director's namespace."""
        with entered(str(self.lab.director.path)):
            yield


@contextlib.contextmanager
def accelerated_director(lab: Lab, **settings: object) -> Iterator[AcceleratedDirector]:
    """Have ipvs_bpf on the lab's director, not converged yet, and take it off at the end."""
    with (
        temporary_directory("director") as name,
        own_bpffs() as bpffs,
        # Its unit is the machine's, while this installation is a test's.
        mock.patch.object(systemd, "running", return_value=False),
    ):
        service = IpvsBpf(node_paths(Path(name), bpffs), str(OBJECT))
        director = AcceleratedDirector(lab, service, settings)
        try:
            yield director
        finally:
            director.remove()
