# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""How long IPVS keeps a quiet connection: what ``ipvsadm -l --timeout`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from ..system.generic_netlink import GenericNetlink
from ..system.netlink import attributes, number
from . import interface


@dataclass(frozen=True)
class Timeouts:
    """Seconds: of an established TCP connection, of one after FIN, of UDP."""

    tcp: int
    tcp_fin: int
    udp: int


def read() -> Timeouts:
    """Asks the kernel; raises FileNotFoundError while it has no IPVS: see kernel_module.ensure()."""
    with GenericNetlink(interface.FAMILY) as netlink:
        found = attributes(netlink.request(interface.GET_CONFIGURATION))
    return Timeouts(
        number(found[interface.TIMEOUT_TCP]),
        number(found[interface.TIMEOUT_TCP_FIN]),
        number(found[interface.TIMEOUT_UDP]),
    )
