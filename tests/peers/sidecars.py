"""The demonstration's mesh as a test sees it: its clients, the server behind it, Envoy's own counts."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.demo.mesh import Mesh
from tests.demo.sidecar import PORTS
from tests.peers.arms import Outcome, assert_same
from tests.peers.http_client import Client
from tests.support import mesh_load
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.netfilter import redirect_loopback
from tests.support.processes import ManagedProcess, Placement, run
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.support.namespaces import NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]
ORIGIN_PORT = 18080
HOPS = 3
"""Connections on the way: application to sidecar, sidecar to sidecar, sidecar to application."""

ANSWERS = re.compile(r"http\.(in|out)bound_http\.downstream_rq_[1-5]xx$|upstream_rq_[1-5]\d\d$")
FAILURES = re.compile(r"_rq_5|_reset|_error|_fail|_overflow|_rq_timeout|_connect_timeout")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Counts:
    """What both Envoys counted meanwhile, by the names of the pod and the counter."""

    answers: dict[str, int]
    failures: dict[str, int]


@dataclass(frozen=True)
class Sidecars:
    """A running mesh with sockops over all of it."""

    mesh: Mesh
    node: Sockops
    client: SocketMaker

    def http(self) -> Client:
        """Return an HTTP client of the client's application."""
        return Client(self.client, self.mesh.server.address4, PORTS.http_port)

    def connect_echo(self) -> socket.socket:
        """Connect the client's application to the echo server, as TCP through both sidecars."""
        return self.client.connect(self.mesh.server.address4, PORTS.tcp_port)

    def load_echo(self, load: mesh_load.Client) -> int:
        """Load the echo server from the client's application; return the number of requests.

        Raises ProcessError at the first byte that is lost, doubled or changed.
        """
        command = load.command(self.mesh.server.address4, PORTS.tcp_port)
        place = Placement(self.mesh.client.namespace, self.mesh.application_cgroup)
        return mesh_load.parse_requests(run(command, place, timeout=load.time_limit)).requests

    def assert_same(self, scenario: Callable[[], Result]) -> Outcome[tuple[Result, Counts]]:
        """Run a scenario with sockops off and on; results and Envoy's counts have to be equal."""
        return assert_same(self.node, lambda: self._counted(scenario), self.mesh.wait_for_empty_pools)

    def _counted(self, scenario: Callable[[], Result]) -> tuple[Result, Counts]:
        before = self._statistics()
        result = scenario()
        # Envoy counts a request at its end, which the client may see first.
        self.mesh.wait_for_empty_pools()
        after = self._statistics()
        moved = {name: after[name] - before.get(name, 0) for name in after}
        return result, Counts(_matching(ANSWERS, moved), _matching(FAILURES, moved))

    def _statistics(self) -> dict[str, int]:
        pods = {"client": self.mesh.client.namespace, "server": self.mesh.server.namespace}
        return {
            f"{pod} {name}": value
            for pod, namespace in pods.items()
            for name, value in envoy_statistics(namespace).items()
        }


def envoy_statistics(namespace: NetworkNamespace) -> dict[str, int]:
    """Return the counters and gauges of the Envoy in a pod, but for those of its administration."""
    text = namespace.run(["curl", "-sSf", "--max-time", "10", f"http://127.0.0.1:{PORTS.admin_port}/stats"])
    lines = (line.rpartition(": ") for line in text.splitlines())
    return {name: int(value) for name, _, value in lines if value.isdigit() and "admin" not in name}


@contextlib.contextmanager
def accelerated_sidecars(directory: Path) -> Iterator[Sidecars]:
    """Run a mesh whose HTTP port leads to the server of `origin`, with sockops over all of it."""
    with (
        Mesh("peers", directory) as mesh,
        TestCgroup("origin", mesh.cgroup) as origin,
        _serving(mesh.server.namespace, origin),
        accelerated([*mesh.cgroups, origin.relative_path]) as node,
        SocketMaker(mesh.client.namespace, mesh.application_cgroup) as client,
    ):
        yield Sidecars(mesh, node, client)


@contextlib.contextmanager
def _serving(namespace: NetworkNamespace, cgroup: TestCgroup) -> Iterator[None]:
    redirect_loopback(namespace, PORTS.http_port, ORIGIN_PORT)
    command = [sys.executable, "-m", "tests.peers.origin", str(ORIGIN_PORT)]
    environment = {"PYTHONPATH": str(ROOT)}
    with ManagedProcess(command, Placement(namespace, cgroup), environment=environment) as server:
        server.wait_for_port(ORIGIN_PORT)
        yield


def _matching(pattern: re.Pattern[str], counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count and pattern.search(name)}
