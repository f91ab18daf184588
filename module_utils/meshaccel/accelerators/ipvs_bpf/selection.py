# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of IPVS's services a wish is about, and how their clients are masqueraded. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...ipvs.model import AddressKey, VirtualService
from .desired import Desired, Follow
from .layout import IpNetwork, Masquerade
from .masquerade import Decisions


@dataclass(frozen=True)
class Selection:
    """Services to take if the node's devices allow it, and those that are not taken, with the reason."""

    services: tuple[tuple[VirtualService, Masquerade], ...] = ()
    #: In words: why.
    native: Mapping[str, str] = field(default_factory=dict)
    local_networks: frozenset[IpNetwork] = frozenset()
    #: The bits that kube-proxy's own FORWARD rules accept; 0: it is not followed.
    mark_accepted: int = 0

    @property
    def servers(self) -> frozenset[str]:
        """The addresses of all real servers of the services to take."""
        return frozenset(server.address for service, _ in self.services for server in service.servers)


def select(desired: Desired, table: Iterable[VirtualService], kube_proxy: Decisions) -> Selection:
    """Chooses from IPVS's table. What is listed wins over what is followed."""
    listed = {AddressKey(*wish.key): wish.masquerade for wish in desired.services}
    chosen: list[tuple[VirtualService, Masquerade]] = []
    native = {str(key): "IPVS has no such service" for key in listed}
    for service in table:
        key = service.key
        decision = listed.get(key) if isinstance(key, AddressKey) else None
        native.pop(str(service), None)
        decided = decision or followed(desired, service, kube_proxy)
        if isinstance(decided, Masquerade):
            chosen.append((service, decided))
        elif decided:
            native[str(service)] = decided
    networks = frozenset(map(ipaddress.ip_network, kube_proxy.local_networks))
    return Selection(tuple(chosen), native, networks, kube_proxy.mark)


def followed(desired: Desired, service: VirtualService, kube_proxy: Decisions) -> Masquerade | str:
    """Returns how a service that is not listed is masqueraded, or why it stays native."""
    if desired.follow is Follow.ALL:
        return desired.masquerade
    if desired.follow is Follow.NONE:
        return "it is not among ipvs_bpf_services"
    key = service.key
    if not isinstance(key, AddressKey):
        return "it is none of kube-proxy's"
    return kube_proxy.masquerade.get(key) or kube_proxy.native.get(key, "it is none of kube-proxy's")
