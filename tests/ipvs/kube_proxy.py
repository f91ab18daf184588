"""What kube-proxy leaves on a node in IPVS mode, made from services as data.

Imitated from what it documents (pkg/proxy/ipvs/README.md of Kubernetes) and from what is listed on nodes that
run it: sets, chains of both tables, the device with the service addresses, virtual services, sysctls.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.ipvs import kube_proxy_rules as rules
from tests.support.namespaces import without_asking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.namespaces import NetworkNamespace

DEVICE = "kube-ipvs0"
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.vs.conntrack": "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
}
VERSIONS = (4, 6)
#: The least that kube-proxy has the connection tracking table hold (--conntrack-min).
TRACKED_FLOWS = 131_072
TRACKING_BUCKETS = Path("/sys/module/nf_conntrack/parameters/hashsize")
TRACKING_LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@dataclass(frozen=True)
class Service:
    """One port of a Kubernetes service, in one address family. Endpoints are addresses of pods."""

    cluster_address: str
    port: int
    target_port: int
    endpoints: tuple[str, ...]
    protocol: str = "tcp"
    node_port: int | None = None
    external_addresses: tuple[str, ...] = ()
    load_balancer_addresses: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    """Networks that may use the load balancer's addresses; none: all."""
    affinity_seconds: int = 0
    """Whether and for how long a client stays with its endpoint (sessionAffinity: ClientIP)."""
    external_traffic_local: bool = False
    """externalTrafficPolicy: Local, which keeps the client's address."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return ipaddress.ip_address(self.cluster_address).version

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those that the node has for it on DEVICE."""
        return (self.cluster_address, *self.external_addresses, *self.load_balancer_addresses)


@dataclass(frozen=True)
class KubeProxy:
    """A kube-proxy with its flags, on a node with these addresses."""

    services: tuple[Service, ...]
    node_addresses: tuple[str, ...] = ()
    local_pods: frozenset[str] = frozenset()
    """Addresses of the pods that run on the node itself."""
    cluster_networks: tuple[str, ...] = ()
    """--cluster-cidr; none: it does not know which clients are pods."""
    masquerade_all: bool = False
    scheduler: str = "rr"

    def start(self, namespace: NetworkNamespace) -> None:
        """Write everything into a namespace that has nothing of it yet."""
        self.bind_addresses(namespace)
        namespace.run(["ipset", "restore"], standard_input=self.sets())
        self.write_rules(namespace)
        namespace.run(["ipvsadm", "-R"], standard_input=self.virtual_services())
        namespace.run(["sysctl", "-q", "-w", *(f"{name}={value}" for name, value in SYSCTLS.items())])

    def write_rules(self, namespace: NetworkNamespace) -> None:
        """Write the rules alone, as into a namespace whose rules somebody has flushed."""
        namespace.run(["iptables-restore", "--noflush"], standard_input=self.rules(4))
        namespace.run(["ip6tables-restore", "--noflush"], standard_input=self.rules(6))

    def bind_addresses(self, namespace: NetworkNamespace) -> None:
        """Give the node the addresses of the services, on a device that nothing is sent by."""
        bound = dict.fromkeys(address for service in self.services for address in service.addresses)
        added = [["address", "add", address, "dev", DEVICE, *without_asking(address)] for address in bound]
        namespace.configure([["link", "add", DEVICE, "type", "dummy"], *added])

    def sets(self) -> str:
        """Return all sets with their members, as `ipset restore` reads them."""
        lines: list[str] = []
        for version in VERSIONS:
            members = self.members(version)
            for name, kind in rules.SETS.items():
                lines.append(f"create {rules.set_name(name, version)} {rules.created(kind, version)}")
                found = dict.fromkeys(members[name])
                lines += [f"add {rules.set_name(name, version)} {member}" for member in found]
        return "\n".join([*lines, ""])

    def members(self, version: int) -> dict[str, list[str]]:
        """Return the members of each set of an address family, by the set's name in IPv4."""
        members: dict[str, list[str]] = {name: [] for name in rules.SETS}
        for service in self._of(version):
            for name, member in self._members_of(service):
                members[name].append(member)
        return members

    def rules(self, version: int) -> str:
        """Return nat and filter rules of an address family, as `iptables-restore` reads them."""
        filled = {name for name, members in self.members(version).items() if members}
        networks = [network for network in self.cluster_networks if version_of(network) == version]
        masquerade = rules.cluster_masquerade(networks, everything=self.masquerade_all)
        return rules.tables(filled, masquerade, version)

    def virtual_services(self) -> str:
        """Return virtual services with their real servers, as `ipvsadm -R` reads them."""
        return "".join(f"{line}\n" for service in self.services for line in self._virtual(service))

    # ---- inside ----

    def _of(self, version: int) -> Iterator[Service]:
        return (service for service in self.services if service.version == version)

    def _node_addresses(self, version: int) -> list[str]:
        return [address for address in self.node_addresses if version_of(address) == version]

    def _members_of(self, service: Service) -> Iterator[tuple[str, str]]:
        port = f"{service.protocol}:{service.port}"
        local = "-LOCAL" if service.external_traffic_local else ""
        for address in service.addresses:
            yield "KUBE-IPVS-IPS", address
        yield "KUBE-CLUSTER-IP", f"{service.cluster_address},{port}"
        for address in service.external_addresses:
            yield f"KUBE-EXTERNAL-IP{local}", f"{address},{port}"
        for address in service.load_balancer_addresses:
            yield "KUBE-LOAD-BALANCER", f"{address},{port}"
            if service.external_traffic_local:
                yield "KUBE-LOAD-BALANCER-LOCAL", f"{address},{port}"
            if service.source_ranges:
                yield "KUBE-LOAD-BALANCER-FW", f"{address},{port}"
            for network in service.source_ranges:
                yield "KUBE-LOAD-BALANCER-SOURCE-CIDR", f"{address},{port},{network}"
        for pod in self.local_pods.intersection(service.endpoints):
            yield "KUBE-LOOP-BACK", f"{pod},{service.protocol}:{service.target_port},{pod}"
        if service.node_port:
            yield from self._node_port_members(service, local)

    def _node_port_members(self, service: Service, local: str) -> Iterator[tuple[str, str]]:
        name = f"KUBE-NODE-PORT{local}-{service.protocol.upper()}"
        for set_name in dict.fromkeys(("KUBE-NODE-PORT-" + service.protocol.upper(), name)):
            if service.protocol != "sctp":
                yield set_name, str(service.node_port)
                continue
            for address in self._node_addresses(service.version):
                yield f"{set_name}-HASH", f"{address},sctp:{service.node_port}"

    def _virtual(self, service: Service) -> Iterator[str]:
        """Return the virtual service of every address at which it is to be had."""
        ends = [endpoint_text(address, service.port) for address in service.addresses]
        if service.node_port:
            node = self._node_addresses(service.version)
            ends += [endpoint_text(address, service.node_port) for address in node]
        option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[service.protocol]
        affinity = f" -p {service.affinity_seconds}" if service.affinity_seconds else ""
        for end in ends:
            yield f"-A {option} {end} -s {self.scheduler}{affinity}"
            for endpoint in service.endpoints:
                yield f"-a {option} {end} -r {endpoint_text(endpoint, service.target_port)} -m -w 1"


def size_connection_tracking() -> None:
    """Size the connection tracking table as kube-proxy does: for all namespaces, by their first one."""
    TRACKING_LIMIT.write_text(str(TRACKED_FLOWS), encoding="ascii")
    TRACKING_BUCKETS.write_text(str(TRACKED_FLOWS // 4), encoding="ascii")


def version_of(address: str) -> int:
    """Return the IP version, 4 or 6, of an address or a network."""
    return ipaddress.ip_network(address, strict=False).version


def endpoint_text(address: str, port: int) -> str:
    """Return an address and a port as ipvsadm writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
