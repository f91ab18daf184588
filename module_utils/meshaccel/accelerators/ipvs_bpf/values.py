# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Single values of a wish for ipvs_bpf: each raises InvalidInput with what is wrong with it."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...checks import choice, invalid, is_number, reject_unknown
from ...model import Json
from ...ports import PortRange, parse_port_range
from .layout import PROTOCOL_NUMBERS, IpAddress, IpNetwork, Masquerade

#: Below net.ipv4.ip_local_port_range and Kubernetes' NodePorts as they are by default.
DEFAULT_SOURCE_PORTS = PortRange(1024, 29999)
#: Privileged ports are for servers.
SMALLEST_SOURCE_PORT = 1024
DEFAULT_MARK_BITS = (0x1000, 0x2000)
#: KUBE-MARK-MASQ and KUBE-MARK-DROP.
KUBE_PROXY_MARKS = 0x4000 | 0x8000
LARGEST_MARK = 0xFFFFFFFF
LARGEST_PORT = 65535
MASQUERADES = tuple(masquerade.value for masquerade in Masquerade)
SERVICE_KEYS = frozenset({"address", "port", "protocol", "masquerade"})
SOURCE_KEYS = frozenset({"ipv4", "ipv6", "ports"})
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
#: What the kernel takes in a device's name (dev_valid_name), and fnmatch(3)'s own signs.
PATTERN = re.compile(r"[^/\s:]{1,60}")


@dataclass(frozen=True)
class ServiceWish:
    """A service that is to be taken, and how its clients are masqueraded."""

    protocol: str
    address: IpAddress
    port: int
    masquerade: Masquerade

    @property
    def key(self) -> tuple[str, str, int]:
        """What IPVS knows the service by."""
        return (self.protocol, str(self.address), self.port)

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.protocol} {host}:{self.port}"

    def as_dict(self) -> dict[str, Json]:
        """Returns the entry in the words of the role."""
        return {
            "protocol": self.protocol,
            "address": str(self.address),
            "port": self.port,
            "masquerade": self.masquerade.value,
        }


@dataclass(frozen=True)
class SourceWish:
    """What replaces clients' addresses at the devices whose names match; None: the device's own."""

    pattern: str
    ipv4: ipaddress.IPv4Address | None
    ipv6: ipaddress.IPv6Address | None
    ports: PortRange

    def matches(self, device: str) -> bool:
        """True when it is for a device of this name."""
        return fnmatch.fnmatchcase(device, self.pattern)

    def as_dict(self) -> dict[str, Json]:
        """Returns the entry in the words of the role."""
        given = {"ipv4": self.ipv4, "ipv6": self.ipv6}
        return {
            "ports": str(self.ports),
            **{family: str(address) for family, address in given.items() if address is not None},
        }


def parse_service(entry: Json) -> ServiceWish:
    """Parses one entry of ipvs_bpf_services."""
    if not isinstance(entry, Mapping):
        invalid("a service as a dictionary", repr(entry), "for example {address: 10.96.0.10, port: 53}")
    reject_unknown(entry, SERVICE_KEYS, "a service")
    port = entry.get("port")
    if isinstance(port, bool) or not is_number(str(port)) or not 1 <= int(str(port)) <= LARGEST_PORT:
        invalid(f"the port of a service, from 1 to {LARGEST_PORT}", repr(port), "correct it")
    return ServiceWish(
        protocol=choice(entry, "protocol", tuple(PROTOCOL_NUMBERS), "tcp"),
        address=parse_address(entry.get("address"), "the address of a service"),
        port=int(str(port)),
        masquerade=parse_masquerade(entry.get("masquerade")),
    )


def parse_masquerade(value: Json) -> Masquerade:
    """Parses whether clients' addresses are replaced; null means remote."""
    return Masquerade(choice({"masquerade": value}, "masquerade", MASQUERADES, Masquerade.REMOTE.value))


def parse_address(value: Json, what: str) -> IpAddress:
    """Parses an address of one machine."""
    try:
        address = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        invalid(f"{what}: one of IPv4 or IPv6", repr(value), "names are not looked up")
    mapped = address.version == 6 and address.ipv4_mapped is not None
    not_sent = address.is_unspecified or address.is_link_local or address.is_loopback or mapped
    if address.is_multicast or address == BROADCAST or not_sent:
        invalid(
            f"{what}: of one machine",
            f"{value!r}, which is multicast, broadcast, unspecified, link-local, loopback or mapped",
            "give the address that packets carry",
        )
    return address


def parse_network(value: Json) -> IpNetwork:
    """Parses a network or an address."""
    try:
        network = ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        invalid("a network", f"{value!r} ({error})", "for example 10.244.0.0/16")
    return network


def parse_pattern(value: Json) -> str:
    """Parses a pattern of devices' names."""
    if not isinstance(value, str) or not PATTERN.fullmatch(value):
        invalid("the name of a device, or a pattern", repr(value), "for example eth0 or cali*")
    return value


def parse_source(pattern: Json, entry: Json) -> SourceWish:
    """Parses one entry of ipvs_bpf_source_addresses."""
    name = parse_pattern(pattern)
    if not isinstance(entry, Mapping):
        invalid(f"a dictionary for {name}", repr(entry), "for example {ipv4: 192.0.2.7}")
    reject_unknown(entry, SOURCE_KEYS, f"the source addresses of {name}")
    addresses: dict[str, IpAddress] = {}
    for family, version in (("ipv4", 4), ("ipv6", 6)):
        if entry.get(family) is None:
            continue
        addresses[family] = parse_address(entry[family], f"the {family} of {name}")
        if addresses[family].version != version:
            invalid(f"an address of {family} for {name}", repr(entry[family]), "correct it")
    ports = DEFAULT_SOURCE_PORTS if entry.get("ports") is None else parse_port_range(entry["ports"])
    if ports.first < SMALLEST_SOURCE_PORT:
        invalid(
            f"source ports of {name} from {SMALLEST_SOURCE_PORT} on", str(ports), "leave out those of servers"
        )
    ipv4, ipv6 = addresses.get("ipv4"), addresses.get("ipv6")
    return SourceWish(
        name,
        ipv4 if isinstance(ipv4, ipaddress.IPv4Address) else None,
        ipv6 if isinstance(ipv6, ipaddress.IPv6Address) else None,
        ports,
    )


def parse_mark_bits(value: Json) -> tuple[int, int]:
    """Parses the two bits of the packet mark; null means 0x1000 and 0x2000."""
    if value is None:
        return DEFAULT_MARK_BITS
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        invalid("two bits of the packet mark", repr(value), "for example [0x1000, 0x2000]")
    low, high = sorted(map(parse_mark, value))
    if low == high or any(not bit or bit & (bit - 1) for bit in (low, high)):
        invalid("two different single bits of the packet mark", f"{low:#x} and {high:#x}", "correct them")
    return low, high


def parse_mark_accepted(value: Json) -> int | None:
    """Parses the mark of what FORWARD chains are to accept; null: it is left to what is followed."""
    return None if value is None else parse_mark(value)


def check_mark_accepted(mark: int, bits: tuple[int, int]) -> None:
    """Raises InvalidInput when that mark has one of our two bits."""
    taken = bits[0] | bits[1]
    if mark & taken:
        invalid(
            "ipvs_bpf_mark_accepted, by default kube-proxy's mark, without the bits of ipvs_bpf_mark_bits",
            f"{mark:#x} and {taken:#x}",
            "choose bits that nobody else uses",
        )


def parse_mark(value: Json) -> int:
    """Parses a value of the packet mark, decimal or hexadecimal."""
    try:
        mark = int(str(value), 0)
    except ValueError:
        mark = -1
    if isinstance(value, bool) or not 0 <= mark <= LARGEST_MARK:
        invalid("a value of the packet mark", repr(value), "for example 0x1000")
    return mark
