# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Looks at what ipvs_bpf lives among: IPVS's table, devices, routes, what sockets use. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from ...errors import InvalidInput
from ...ipvs import module, table, timeouts
from ...ipvs.model import AddressKey, VirtualService
from ...ipvs.timeouts import Timeouts
from ...ports import PortRange
from ...system import route_netlink
from .desired import Desired
from .layout import Masquerade
from .selection import Selection, select
from .state import Surroundings

LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
#: There when nf_conntrack is in the kernel, also when it is built in.
CONNTRACK = "/proc/sys/net/netfilter/nf_conntrack_max"


def read_timeouts() -> Timeouts:
    """Asks IPVS for its timeouts; while it is not loaded they are the defaults it would have."""
    return timeouts.read() if module.loaded() else Surroundings().timeouts


@dataclass(frozen=True)
class Readers:
    """How IPVS is looked at; tests on kernels without it give their own."""

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
    selection = select(desired, services, kube_proxy(desired, services))
    around = Surroundings(
        links=links,
        services=services,
        timeouts=readers.timeouts(),
        routes=route_netlink.routes(sorted(selection.servers)),
        conntrack=os.path.exists(CONNTRACK),
        local_ports=read_local_ports(),
    )
    return around, selection


def kube_proxy(
    desired: Desired, services: tuple[VirtualService, ...]
) -> Mapping[AddressKey, Masquerade | str]:
    """Returns how kube-proxy masquerades each of its services, where it is followed."""
    del desired, services
    return {}


def read_local_ports(path: str = LOCAL_PORTS) -> PortRange:
    """Returns the ports that the kernel gives to sockets that name none."""
    with open(path, encoding="ascii") as stream:
        words = stream.read().split()
    if len(words) != 2:
        raise InvalidInput(wanted=f"two ports in {path}", found=repr(words), remedy="write two to it")
    return PortRange(int(words[0]), int(words[1]))
