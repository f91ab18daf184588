"""A service of a cluster around the lab, in both address families, as tests need it again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.ipvs import loads
from tests.ipvs.kube_proxy import KubeProxy, Service
from tests.ipvs.lab import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.ipvs.lab import Host, Lab

#: By IP version.
CLUSTER_ADDRESS = {4: "10.96.0.10", 6: "fd96::10"}
SERVICE_PORT, NODE_PORT = 80, 30080


def cluster(lab: Lab, *target_ports: int, endpoints: Sequence[Host] = (), **changes: Any) -> KubeProxy:
    """Return a kube-proxy with a service in both families for each target port, by default on all backends.

    The first is to be had at CLUSTER_ADDRESS, SERVICE_PORT, and at the director's own addresses, NODE_PORT;
    the next at the ports after those. The whole lab is in the cluster's networks. `changes` are other
    values of fields of KubeProxy.
    """
    hosts = endpoints or lab.backends
    services = [
        Service(
            CLUSTER_ADDRESS[version],
            SERVICE_PORT + number,
            target_port,
            addresses(hosts, version),
            node_port=NODE_PORT + number,
        )
        for number, target_port in enumerate(target_ports)
        for version in (4, 6)
    ]
    node = [host.gateway(version) for host in lab.hosts for version in versions(host)]
    proxy = KubeProxy(tuple(services), tuple(node), cluster_networks=NETWORKS)
    return replace(proxy, **changes)


def check_clients_seen(lab: Lab, version: int) -> None:
    """Ask nginx "one" and "two" on the first two backends which client they see: as kube-proxy has it.

    At the cluster's address that is the client itself, at the node's port the director.
    """
    client, node = lab.client.address(version), lab.client.gateway(version)
    first, second = (backend.gateway(version) for backend in lab.backends)
    inside = [loads.request(lab.client, CLUSTER_ADDRESS[version], SERVICE_PORT) for _ in range(2)]
    assert sorted(inside) == [f"one {client}", f"two {client}"]
    outside = [loads.request(lab.client, node, NODE_PORT) for _ in range(2)]
    assert sorted(outside) == [f"one {first}", f"two {second}"]


def addresses(hosts: Sequence[Host], version: int) -> tuple[str, ...]:
    """Return the addresses of hosts in one family, of those that have one."""
    return tuple(host.address(version) for host in hosts if version in versions(host))


def versions(host: Host) -> tuple[int, ...]:
    """Return the IP versions that a host's link carries."""
    return (4, 6) if host.link.carries_ipv6 else (4,)
