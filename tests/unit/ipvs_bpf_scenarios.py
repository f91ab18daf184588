"""Wishes, devices and services for the tests of ipvs_bpf's plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshaccel.accelerators.ipvs_bpf.desired import parse
from meshaccel.accelerators.ipvs_bpf.masquerade import Decisions
from meshaccel.accelerators.ipvs_bpf.resolution import resolve
from meshaccel.accelerators.ipvs_bpf.selection import select
from meshaccel.accelerators.ipvs_bpf.state import Surroundings
from meshaccel.ipvs.model import RealServer, VirtualService
from meshaccel.paths import NodePaths
from meshaccel.system.route_netlink import Link, Route

if TYPE_CHECKING:
    from meshaccel.accelerators.ipvs_bpf.desired import Desired
    from meshaccel.accelerators.ipvs_bpf.resolution import Resolved
    from meshaccel.model import Json, Mode

PATHS = NodePaths()
DOCUMENT = PATHS.desired("ipvs_bpf")
ETHERNET, LOOPBACK, NO_HEADER = 1, 772, 65534


def link(index: int, name: str, *addresses: str, **changes: Json) -> Link:
    """Return a device; what `changes` leaves open is an Ethernet device of no master."""
    settings = {"hardware_type": ETHERNET, "kind": "", "master_index": 0, "master_kind": "", **changes}
    return Link(index=index, name=name, mtu=1500, up=True, addresses=addresses, **settings)


LO = link(1, "lo", hardware_type=LOOPBACK)
UPLINK = link(2, "eth0", "192.0.2.1", "2001:db8::1")
PODS = link(3, "cni0", "10.244.0.1", kind="bridge")
POD = link(4, "veth1", kind="veth", master_index=3, master_kind="bridge")
TUNNEL = link(5, "wg0", "10.9.0.1", hardware_type=NO_HEADER, kind="wireguard")
DUMMY = link(6, "kube-ipvs0", "10.96.0.1", kind="dummy")
LINKS = (LO, UPLINK, PODS, POD, TUNNEL, DUMMY)

WEB = VirtualService("tcp", "10.96.0.1", 80, None, "ipv4", "rr", servers=(RealServer("10.244.0.5", 8080),))
DNS = VirtualService("udp", "10.96.0.10", 53, None, "ipv4", "rr", servers=(RealServer("10.9.0.2", 53),))
WEB6 = VirtualService("tcp", "fd00::1", 80, None, "ipv6", "rr", servers=(RealServer("2001:db8::5", 80),))
HERE = VirtualService("tcp", "10.96.0.2", 80, None, "ipv4", "rr", servers=(RealServer("192.0.2.1", 80),))
SERVICES = (WEB, DNS, WEB6, HERE)
ROUTES = {
    "10.244.0.5": Route(3, "", "10.244.0.1"),
    "10.9.0.2": Route(5, "", "10.9.0.1"),
    "2001:db8::5": Route(2, "", "2001:db8::1"),
    "192.0.2.1": Route(1, "", "192.0.2.1", local=True),
}


def around(
    links: tuple[Link, ...] = LINKS, services: tuple[VirtualService, ...] = SERVICES, **changes: Json
) -> Surroundings:
    """Return the surroundings with these devices and services."""
    return Surroundings(links=links, services=services, routes=ROUTES, **changes)


def wish(**settings: Json) -> Desired:
    """Return a wish for every service in BPF; `settings` are role variables without their prefix."""
    return parse({"mode": "bpf", "follow": "all", **settings})


def resolved(desired: Desired, surroundings: Surroundings, hold: Mode | None = None) -> Resolved:
    """Return a wish in terms of a node."""
    selection = select(desired, surroundings.services, Decisions({}, {}, ()))
    return resolve(desired, surroundings, selection, hold)
