# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Virtual services and real servers, as they are wished and as the kernel has them.

Named tuples, since a node may have ten thousand services of five servers: they are
made, compared and hashed several times as fast as dataclasses.
"""

from __future__ import annotations

from typing import NamedTuple, Union


class AddressKey(NamedTuple):
    """What the kernel knows a service of an address by."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.protocol} {joined(self.address, self.port)}"


class MarkKey(NamedTuple):
    """What the kernel knows a service of a firewall mark by."""

    family: str
    firewall_mark: int

    def __str__(self) -> str:
        return f"firewall mark {self.firewall_mark} {self.family}"


ServiceKey = Union[AddressKey, MarkKey]
ServerKey = tuple[str, int]


class RealServer(NamedTuple):
    """A server behind a service. Addresses are canonical text; thresholds are connections, 0 for none.

    ``forwarding`` is masquerade, direct_routing or tunnel; the tunnel's own are None
    for the others. The kernel may have two more, local and bypass, that nothing sets today.
    """

    address: str
    port: int
    forwarding: str = "masquerade"
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    #: ipip, gue or gre.
    tunnel_type: str | None = None
    #: The destination port of gue, otherwise 0.
    tunnel_port: int | None = None
    #: none, full or remote (gue alone).
    tunnel_checksum: str | None = None

    @property
    def key(self) -> ServerKey:
        """What the kernel knows it by within its service."""
        return (self.address, self.port)

    def __str__(self) -> str:
        return joined(self.address, self.port)


class VirtualService(NamedTuple):
    """A service: of protocol, address and port, or of a firewall mark; the others are None."""

    protocol: str | None
    address: str | None
    port: int | None
    firewall_mark: int | None
    #: ipv4 or ipv6.
    family: str
    scheduler: str
    #: Sorted: ops, sh-port, sh-fallback, mh-port, mh-fallback.
    flags: tuple[str, ...] = ()
    #: Seconds; None: each connection is scheduled on its own.
    persistence_timeout: int | None = None
    #: Of the clients that are one: dotted for IPv4, a prefix length for IPv6; None without persistence.
    persistence_netmask: str | None = None
    persistence_engine: str | None = None
    servers: tuple[RealServer, ...] = ()

    @property
    def key(self) -> ServiceKey:
        """What the kernel knows it by."""
        if self.firewall_mark is not None:
            return MarkKey(self.family, self.firewall_mark)
        return AddressKey(str(self.protocol), str(self.address), int(self.port or 0))

    @property
    def settings(self) -> VirtualService:
        """All of it but its servers."""
        return self._replace(servers=())

    def __str__(self) -> str:
        return str(self.key)


def joined(address: str, port: int) -> str:
    """Returns an address with a port, as people write them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
