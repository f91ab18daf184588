# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks at what ipvs_bpf lives among: IPVS's table, devices, routes, what sockets use. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from ...errors import InvalidInput
from ...ipvs import applications, kernel_module, table, timeouts
from ...ipvs.model import AddressKey, VirtualService
from ...ipvs.timeouts import Timeouts
from ...ports import PortRange
from ...system import conntrack, route_netlink
from . import kube_proxy
from .desired import Desired, Follow
from .layout import PROTOCOL_NUMBERS
from .masquerade import Decisions, Overrides, decide
from .selection import Selection, select
from .state import Surroundings

LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"


def read_timeouts() -> Timeouts:
    """Asks IPVS for its timeouts; while it is not loaded they are the defaults it would have."""
    return timeouts.read() if kernel_module.loaded() else Surroundings().timeouts


@dataclass(frozen=True)
class Readers:
    """How IPVS is looked at; tests on kernels without it give their own."""

    loaded: Callable[[], bool] = kernel_module.loaded
    ensure: Callable[[], None] = kernel_module.ensure
    services: Callable[[], tuple[VirtualService, ...]] = table.read
    timeouts: Callable[[], Timeouts] = read_timeouts


def look(desired: Desired, readers: Readers) -> tuple[Surroundings, Selection]:
    """Looks at the surroundings as far as a wish needs it, and chooses services.

    Raises Unsupported when the kernel cannot have IPVS.
    """
    links = route_netlink.links()
    if not (desired.present and desired.bpf):
        return Surroundings(links=links, local_ports=read_local_ports()), Selection()
    services = readers.services()
    selection = select(desired, services, kube_proxys_decisions(desired, services))
    around = Surroundings(
        links=links,
        services=services,
        timeouts=readers.timeouts(),
        routes=route_netlink.routes(sorted(selection.servers)),
        applications=applications.read(),
        conntrack=conntrack.present(),
        local_ports=read_local_ports(),
    )
    return around, selection


def kube_proxys_decisions(desired: Desired, services: tuple[VirtualService, ...]) -> Decisions:
    """Returns how kube-proxy masquerades each service, where it is followed.

    Raises Unsupported when there is no kube-proxy to follow.
    """
    if desired.follow is not Follow.KUBE_PROXY:
        return Decisions({}, {}, ())
    overrides = Overrides(desired.masquerade_all, tuple(map(str, desired.local_networks)))
    keys = [service.key for service in services]
    taken = [key for key in keys if isinstance(key, AddressKey) and key.protocol in PROTOCOL_NUMBERS]
    return decide(taken, kube_proxy.read(), overrides)


def read_local_ports(path: str = LOCAL_PORTS) -> PortRange:
    """Returns the ports that the kernel gives to sockets that name none."""
    with open(path, encoding="ascii") as stream:
        words = stream.read().split()
    if len(words) != 2:
        raise InvalidInput(wanted=f"two ports in {path}", found=repr(words), remedy="write two to it")
    return PortRange(int(words[0]), int(words[1]))
