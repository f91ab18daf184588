"""A director with a client and two backends around it, each in a namespace, for tests in a guest.

The director is a namespace too, so its virtual services, connection tracking, rules and sysctls are its own.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.support.namespaces import Attachment, NetworkNamespace, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

#: All addresses of hosts lie in them, as those of pods do in a cluster's.
NETWORKS = ("10.79.0.0/16", "fd79::/16")
HOST_DEVICE = "eth0"
BRIDGE = "cni0"
VLAN = 100
VXLAN_PORT = "4789"
#: The numbers of the networks of wires below tunnels begin here.
TUNNEL_WIRES = 100


class Link(enum.Enum):
    """What lies between the director and a host. Its value names the kind of device of the director."""

    WIRE = "veth"
    BRIDGE = "bridge"
    VLAN = "vlan"
    VXLAN = "vxlan"
    GRE = "gre"
    IPIP = "ipip"
    """IPv4 alone."""

    @property
    def carries_ipv6(self) -> bool:
        """Whether the host has an IPv6 address on this link."""
        return self is not Link.IPIP


@dataclass(frozen=True)
class Host:
    """A namespace around the director: `.2` of its network, while the director is `.1`."""

    namespace: NetworkNamespace
    number: int
    link: Link
    device: str
    """The director's end of the link, by which packets go to the host."""

    @property
    def address4(self) -> str:
        """Its IPv4 address."""
        return address4(self.number, 2)

    @property
    def address6(self) -> str:
        """Its IPv6 address; raises ValueError where the link carries none."""
        if not self.link.carries_ipv6:
            raise ValueError(f"{self.device}: {self.link.value} carries no IPv6")
        return address6(self.number, 2)

    @property
    def gateway4(self) -> str:
        """The director's IPv4 address on the link."""
        return address4(self.number, 1)

    @property
    def gateway6(self) -> str:
        """The director's IPv6 address on the link."""
        return address6(self.number, 1)

    def address(self, version: int) -> str:
        """Return its address of IP version 4 or 6."""
        return self.address6 if version == 6 else self.address4

    def gateway(self, version: int) -> str:
        """Return the director's address on the link, of IP version 4 or 6."""
        return self.gateway6 if version == 6 else self.gateway4


def address4(network: int, host: int) -> str:
    """Return an address of one of the lab's /24 networks."""
    return f"10.79.{network}.{host}"


def address6(network: int, host: int) -> str:
    """Return an address of one of the lab's /64 networks."""
    return f"fd79:{network:x}::{host:x}"


class Lab:
    """The director, a client and backends; more hosts are added as a test needs them.

    Every host's default routes lead to the director, which forwards.
    """

    def __init__(self, resources: contextlib.ExitStack, label: str) -> None:
        """Make the director; what is made goes with `resources`."""
        self.director = resources.enter_context(NetworkNamespace(f"{label}-director"))
        self.director.forward()
        self.hosts: list[Host] = []
        self.backends: tuple[Host, ...] = ()
        self._label = label
        self._resources = resources

    @classmethod
    @contextlib.contextmanager
    def running(cls, label: str = "lab", *, backends: int = 2) -> Iterator[Self]:
        """Have a lab for the length of a block; `label` tells the labs of one test apart."""
        with contextlib.ExitStack() as resources:
            lab = cls(resources, label)
            lab.add_host("client")
            lab.backends = tuple(lab.add_host(f"backend{number + 1}") for number in range(backends))
            yield lab

    @property
    def client(self) -> Host:
        """The first client."""
        return self.hosts[0]

    def add_host(self, label: str, link: Link = Link.WIRE) -> Host:
        """Make a host; `label` is the name of the director's device too, unless that is the bridge."""
        number = len(self.hosts) + 1
        namespace = self._resources.enter_context(NetworkNamespace(f"{self._label}-{label}"))
        host = Host(namespace, number, link, BRIDGE if link is Link.BRIDGE else label)
        if link is Link.WIRE:
            connect(self._director_end(host, label), _host_end(host, HOST_DEVICE))
        elif link is Link.BRIDGE:
            self._add_to_bridge(host, f"{label}-port")
        elif link is Link.VLAN:
            self._add_vlan(host)
        else:
            self._add_tunnel(host)
        self.hosts.append(host)
        return host

    def remove_host(self, host: Host) -> None:
        """Take the director's end of a host's link away, as when a pod goes; its namespace stays."""
        self.director.run(["ip", "link", "delete", host.device])

    def restore_host(self, host: Host) -> None:
        """Link a host that was removed by a new wire, as when a pod comes back with its address."""
        connect(self._director_end(host, host.device), _host_end(host, HOST_DEVICE))

    # ---- inside ----

    def _director_end(self, host: Host, device: str) -> Attachment:
        return Attachment(self.director, device, _addresses(host, 1))

    def _add_to_bridge(self, host: Host, port: str) -> None:
        """Put a host on the director's bridge, which has an address for each of them."""
        if not any(other.link is Link.BRIDGE for other in self.hosts):
            self.director.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        self._director_end(host, BRIDGE).bring_up()
        connect(Attachment(self.director, port), _host_end(host, HOST_DEVICE))
        self.director.run(["ip", "link", "set", port, "master", BRIDGE])

    def _add_vlan(self, host: Host) -> None:
        parent = f"{host.device}-wire"
        connect(Attachment(self.director, parent), Attachment(host.namespace, HOST_DEVICE))
        for namespace, below, end in (
            (self.director, parent, self._director_end(host, host.device)),
            (host.namespace, HOST_DEVICE, _host_end(host, "vlan")),
        ):
            kind = ["type", "vlan", "id", str(VLAN)]
            namespace.run(["ip", "link", "add", end.interface, "link", below, *kind])
            end.bring_up()

    def _add_tunnel(self, host: Host) -> None:
        """Put a tunnel over a wire; the wire's network is another than that of the host's address."""
        ends = [address4(TUNNEL_WIRES + host.number, end) for end in (1, 2)]
        wires = [
            Attachment(namespace, device, (f"{own}/24",))
            for namespace, device, own in (
                (self.director, f"{host.device}-wire", ends[0]),
                (host.namespace, HOST_DEVICE, ends[1]),
            )
        ]
        connect(*wires)
        overlays = (self._director_end(host, host.device), _host_end(host, "tunnel"))
        for overlay, own, other in zip(overlays, ends, reversed(ends), strict=True):
            kind = ["type", host.link.value, "local", own, "remote", other]
            if host.link is Link.VXLAN:
                kind += ["id", str(host.number), "dstport", VXLAN_PORT]
            overlay.namespace.run(["ip", "link", "add", overlay.interface, *kind])
            overlay.bring_up()


def _host_end(host: Host, device: str) -> Attachment:
    gateways = (host.gateway4, host.gateway6) if host.link.carries_ipv6 else (host.gateway4,)
    return Attachment(host.namespace, device, _addresses(host, 2), gateways)


def _addresses(host: Host, end: int) -> tuple[str, ...]:
    ipv4 = f"{address4(host.number, end)}/24"
    return (ipv4, f"{address6(host.number, end)}/64") if host.link.carries_ipv6 else (ipv4,)
