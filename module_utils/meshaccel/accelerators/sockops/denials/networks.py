# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks whose connections stay on TCP: parsed, and brought into the form of the kernel's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from ....checks import invalid
from ....model import Json
from ....ports import PortRange
from .. import layout
from ..ports import parse_ports

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Network = Union[IPv4Network, IPv6Network]

KEYS = frozenset({"network", "ports"})
IPV4_MAPPED_BITS = 96
EVERY_PORT: tuple[PortRange, ...] = ()


@dataclass(frozen=True, order=True)
class DeniedNetwork:
    """Connections with an end in ``network`` (canonical text) and either end's port among the ports.

    No ports means all of them.
    """

    network: str
    ports: tuple[PortRange, ...] = EVERY_PORT

    def __str__(self) -> str:
        if not self.ports:
            return self.network
        return f"{self.network} ports {', '.join(map(str, self.ports))}"

    def as_dict(self) -> dict[str, Json]:
        """Returns the rule in the words of ``sockops_denied_networks``."""
        return {"network": self.network, "ports": [str(ports) for ports in self.ports]}


def parse_network(entry: Json) -> DeniedNetwork:
    """Parses one entry of ``sockops_denied_networks``; raises InvalidInput."""
    if isinstance(entry, str):
        return DeniedNetwork(canonical(entry))
    if not isinstance(entry, Mapping) or "network" not in entry or not set(entry) <= KEYS:
        invalid(
            "a network as text, or as network and ports",
            repr(entry),
            "for example {network: 192.168.1.5, ports: [6379]}",
        )
    ports = EVERY_PORT if entry.get("ports") is None else parse_ports(entry["ports"])
    return DeniedNetwork(canonical(entry["network"]), ports)


def canonical(text: Json) -> str:
    """Returns a network, or a single address, in its one form; raises InvalidInput."""
    # Costs a run without denied networks nothing.
    import ipaddress

    if not isinstance(text, str) or "%" in text:
        invalid("a network as text", repr(text), "for example 10.0.0.0/8 or fd00::/8")
    try:
        return str(without_mapping(ipaddress.ip_network(text)))
    except ValueError as error:
        invalid("an IPv4 or IPv6 network", f"{text!r} ({error})", "for example 10.0.0.0/8 or fd00::/8")


def without_mapping(network: Network) -> Network:
    """Returns the IPv4 network that a network of v4-mapped addresses stands for, and any other as it is."""
    import ipaddress

    first = network.network_address
    if not isinstance(first, ipaddress.IPv6Address) or network.prefixlen < IPV4_MAPPED_BITS:
        return network
    if first.ipv4_mapped is None:
        return network
    return ipaddress.IPv4Network((first.ipv4_mapped, network.prefixlen - IPV4_MAPPED_BITS))


def flatten(rules: Iterable[DeniedNetwork]) -> tuple[DeniedNetwork, ...]:
    """Returns the kernel's table for these rules, sorted.

    The kernel finds the longest match and nothing else, so a network has the
    ports of the networks around it as well. One that adds nothing to them is left
    out. Raises InvalidInput when the table has no room.
    """
    own = ports_by_network(rules)
    table: dict[Network, tuple[PortRange, ...]] = {}
    around: list[Network] = []
    for network in sorted(own, key=lambda each: (each.version, each.network_address, each.prefixlen)):
        while around and not contains(around[-1], network):
            around.pop()
        outer = table[around[-1]] if around else None
        ports = own[network] if outer is None else joined(own[network], outer)
        if ports == outer:
            continue
        check_ranges(network, ports)
        table[network] = ports
        around.append(network)
    if len(table) > layout.DENIED_NETWORKS:
        invalid(f"at most {layout.DENIED_NETWORKS} denied networks", str(len(table)), "name larger networks")
    return tuple(sorted(DeniedNetwork(str(network), ports) for network, ports in table.items()))


def ports_by_network(rules: Iterable[DeniedNetwork]) -> dict[Network, tuple[PortRange, ...]]:
    """Joins the rules for the same network."""
    import ipaddress

    found: dict[str, tuple[PortRange, ...]] = {}
    for rule in rules:
        ports = merged(rule.ports)
        before = found.get(rule.network)
        found[rule.network] = ports if before is None else joined(before, ports)
    return {ipaddress.ip_network(text): ports for text, ports in found.items()}


def contains(outer: Network, inner: Network) -> bool:
    """True when the inner network lies in the outer one."""
    # mypy does not see that the same version is the same class.
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def joined(one: tuple[PortRange, ...], other: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Returns the ports of both; every port when one of them means that."""
    return merged((*one, *other)) if one and other else EVERY_PORT


def merged(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Joins ranges that overlap or touch."""
    result: list[PortRange] = []
    for ports in sorted(ranges):
        if result and ports.first <= result[-1].last + 1:
            result[-1] = PortRange(result[-1].first, max(result[-1].last, ports.last))
        else:
            result.append(ports)
    return tuple(result)


def check_ranges(network: Network, ports: tuple[PortRange, ...]) -> None:
    """Raises InvalidInput when the kernel's entry has no room for so many ranges."""
    if len(ports) > layout.PORT_RANGES:
        invalid(
            f"at most {layout.PORT_RANGES} ports and ranges of {network} and the networks around it",
            str(len(ports)),
            "join some, or deny every port of it",
        )
