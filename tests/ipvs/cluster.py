"""A service of a cluster around the lab, in both address families, as tests need it again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

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


def addresses(hosts: Sequence[Host], version: int) -> tuple[str, ...]:
    """Return the addresses of hosts in one family, of those that have one."""
    return tuple(host.address(version) for host in hosts if version in versions(host))


def versions(host: Host) -> tuple[int, ...]:
    """Return the IP versions that a host's link carries."""
    return (4, 6) if host.link.carries_ipv6 else (4,)
