# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which devices ipvs_bpf's programs can hang at, and which of them each needs. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from ...system.route_netlink import Link
from .layout import BARE, EGRESS_PROGRAM, INGRESS_PROGRAM, IpAddress
from .state import Source

#: ARPHRD_* of include/uapi/linux/if_arp.h.
ETHERNET = 1
LOOPBACK = 772
#: Devices whose packets begin with the network's header:
#: PPP, RAWIP, TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, NONE.
BARE_TYPES = frozenset({512, 519, 768, 769, 776, 778, 823, 65534})
#: Packets of other machines never pass here; kube-ipvs0 is a dummy.
UNSUITED_KINDS = {
    "dummy": "it leads nowhere",
    "ifb": "it shapes what others receive",
    "nlmon": "it only shows",
}


@dataclass(frozen=True)
class DeviceWish:
    """A device to attach to; ``source`` is None at a port of a bridge, where only ingress is."""

    link: Link
    source: Source | None

    @property
    def programs(self) -> tuple[str, str | None]:
        """The names of the programs at ingress and egress."""
        suffix = BARE if self.link.hardware_type in BARE_TYPES else ""
        return INGRESS_PROGRAM + suffix, None if self.source is None else EGRESS_PROGRAM + suffix


def why_unsuited(link: Link) -> str | None:
    """Returns why no program can hang at a device, or None when one can."""
    if link.hardware_type == LOOPBACK:
        return "it is the loopback device"
    if link.hardware_type != ETHERNET and link.hardware_type not in BARE_TYPES:
        return f"its hardware type is {link.hardware_type}"
    if link.kind in UNSUITED_KINDS:
        return UNSUITED_KINDS[link.kind]
    if link.master_index and link.master_kind not in ("bridge", "vrf"):
        return f"its packets are those of the {link.master_kind or 'device'} that it is a part of"
    return None


def is_bridge_port(link: Link) -> bool:
    """True when a device is a port of a bridge: br_netfilter has its packets meet prerouting there."""
    return bool(link.master_index) and link.master_kind == "bridge"


def first_addresses(link: Link) -> dict[int, IpAddress]:
    """Returns the first address of each version: what the kernel gives sockets that name none."""
    found: dict[int, IpAddress] = {}
    for text in link.addresses:
        address = ipaddress.ip_address(text)
        found.setdefault(address.version, address)
    return found
