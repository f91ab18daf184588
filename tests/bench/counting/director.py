"""Arms of IPVS: a lab each, whose director takes connections to the backend in one of several ways."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.bench.counting.clock import instruction_cost
from tests.bench.model import Case
from tests.bench.runner import NotAsPromisedError
from tests.ipvs import loads
from tests.ipvs.cluster import CLUSTER_ADDRESS, NODE_PORT, SERVICE_PORT, cluster
from tests.ipvs.director import accelerated_director
from tests.ipvs.kube_proxy import size_connection_tracking
from tests.ipvs.lab import Lab
from tests.ipvs.observation import tracked_flows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.results import Figures
    from tests.support.mesh_load import Client

TARGET_PORTS = (loads.ECHO_PORT, loads.SINK_PORT)


class Entrance(enum.Enum):
    """Where a client enters a service."""

    NODE_PORT = "NodePort"
    """The client's address is replaced."""
    CLUSTER_ADDRESS = "ClusterIP"
    """It is not, since the client is one of the cluster's pods."""


@dataclass(frozen=True)
class DirectorArm:
    """A lab with the project's own servers on its one backend."""

    lab: Lab
    has_services: bool
    """Whether clients enter through services of the director, or go to the backend itself."""

    def operations_per_second(self, client: Client, entrance: Entrance) -> float:
        """Run a client to its end; an operation is a request, or a write of a stream."""
        address, port = self._target(client, entrance)
        if client.mode == "stream":
            sent = loads.stream(self.lab.client, client, address, port, checked=False)
            return sent.bytes_per_second / client.size
        return loads.requests(self.lab.client, client, address, port, checked=False).requests_per_second

    def _target(self, client: Client, entrance: Entrance) -> tuple[str, int]:
        number = TARGET_PORTS.index(loads.SINK_PORT if client.mode == "stream" else loads.ECHO_PORT)
        if not self.has_services:
            return self.lab.backends[0].address4, TARGET_PORTS[number]
        if entrance is Entrance.NODE_PORT:
            return self.lab.client.gateway4, NODE_PORT + number
        return CLUSTER_ADDRESS[4], SERVICE_PORT + number


@contextlib.contextmanager
def routed() -> Iterator[DirectorArm]:
    """Forward packets to the backend's own address, without netfilter."""
    with _served_lab("routed") as lab:
        yield DirectorArm(lab, has_services=False)


@contextlib.contextmanager
def native() -> Iterator[DirectorArm]:
    """Take connections to services as kube-proxy has it: IPVS, connection tracking and the nat table."""
    with _served_lab("native") as lab:
        cluster(lab, *TARGET_PORTS).start(lab.director)
        size_connection_tracking()
        yield DirectorArm(lab, has_services=True)


@contextlib.contextmanager
def bpf(*, fast_path: bool) -> Iterator[DirectorArm]:
    """Take them by ipvs_bpf, which follows the same kube-proxy.

    Raises NotAsPromisedError when a flow was tracked after all, or there was none.
    """
    with (
        _served_lab("fast" if fast_path else "bpf") as lab,
        accelerated_director(lab, follow="kube_proxy", fast_path=fast_path) as accelerator,
    ):
        cluster(lab, *TARGET_PORTS).start(lab.director)
        accelerator.converge()
        yield DirectorArm(lab, has_services=True)
        tracked, sessions = tracked_flows(lab.director, [lab.client.address4]), accelerator.sessions()
        if tracked or not sessions:
            raise NotAsPromisedError(
                f"connection tracking has {len(tracked)} flows of the client, where none should be, "
                f"and ipvs_bpf {len(sessions)} sessions"
            )


@contextlib.contextmanager
def _served_lab(label: str) -> Iterator[Lab]:
    """Have a lab of one backend with its servers."""
    with Lab.running(label, backends=1) as lab, loads.echo_and_sink(lab.backends):
        # So many that the client does not search for one that is free.
        lab.client.namespace.set_sysctl("net.ipv4.ip_local_port_range", "1024 65000")
        yield lab


def director_case(label: str, client: Client, entrance: Entrance) -> Case[DirectorArm]:
    """Return the case of a client's operations at an entrance, which counts their instructions."""

    def measure(arm: DirectorArm, seconds: float) -> Figures:
        return {"qps": arm.operations_per_second(replace(client, duration=seconds), entrance)}

    workload = f"{client.mode}, {client.size} bytes, client, director and backend together"
    return Case(f"{label}, {entrance.value}", workload, instruction_cost(measure))
