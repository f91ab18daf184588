# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices, addresses and routes of the calling thread's network namespace (rtnetlink(7))."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from . import netlink

#: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h.
GET_LINK = 18
GET_ADDRESS = 22
GET_ROUTE = 26
LINK_NAME = 3
LINK_MTU = 4
LINK_MASTER = 10
LINK_INFORMATION = 18
LINK_KIND = 1
LINK_WANTED = 29
#: In LINK_WANTED: statistics are left out, which are most of an answer.
WITHOUT_STATISTICS = 8
UP = 1
ADDRESS_PEER = 1
ADDRESS_LOCAL = 2
ADDRESS_FLAGS = 8
#: Temporary (RFC 8981; for IPv4, secondary), duplicate, deprecated, tentative.
TEMPORARY = 0x01
UNUSABLE = 0x08 | 0x20 | 0x40
SCOPE_GLOBAL = 0
ROUTE_DESTINATION = 1
ROUTE_SOURCE = 2
ROUTE_DEVICE = 4
ROUTE_GATEWAY = 5
ROUTE_PREFERRED_SOURCE = 7
ROUTE_NEXT_HOPS = 9
#: A gateway of the other family (RFC 5549): struct rtvia, the family and the address.
ROUTE_VIA = 18
#: In the question: the entry that matches is told, with all of its next hops, not the choice among them.
MATCHING_ENTRY = 0x2000
UNICAST = 1
LOCAL = 2
#: What the kernel says where no route leads, or one forbids it.
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
#: Multicast groups as a mask: links, and of both versions addresses, routes and rules.
EVENT_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000

#: struct ifinfomsg: family, padding, hardware type, index, flags, change.
LINK_MESSAGE = struct.Struct("=BBHiII")
#: struct ifaddrmsg: family, prefix length, flags, scope, index.
ADDRESS_MESSAGE = struct.Struct("=BBBBI")
#: struct rtmsg: family, two prefix lengths, type of service, table, protocol, scope, type, flags.
ROUTE_MESSAGE = struct.Struct("=BBBBBBBBI")
#: struct rtnexthop: length, flags, hops, device; attributes follow.
NEXT_HOP = struct.Struct("=HBBi")
#: AF_INET and AF_INET6, by the version.
FAMILIES = {4: 2, 6: 10}


@dataclass(frozen=True)
class Link:
    """A device.

    ``hardware_type`` is an ARPHRD_ number of if_arp.h; ``kind`` names its
    driver (veth, bridge, vlan) and is empty for hardware; ``master_index`` 0:
    it is enslaved to none. ``addresses`` are those that packets may be sent
    from: of global scope, usable, not temporary; IPv4 first, in the kernel's order.
    """

    index: int
    name: str
    hardware_type: int
    kind: str
    master_index: int
    master_kind: str
    mtu: int
    up: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """Where packets to an address go; ``gateway`` is empty on the device's own network.

    ``source`` is the address the kernel would send from. ``local``: the
    destination is this node itself, and the device is its loopback.
    ``other_devices``: where packets of other flows to the same address may go,
    by a route with several gateways.
    """

    device_index: int
    gateway: str
    source: str
    local: bool = False
    other_devices: tuple[int, ...] = ()


class Events(netlink.Events):
    """Tells when links, addresses, routes or rules have changed."""

    def __init__(self) -> None:
        """Subscribes."""
        super().__init__(netlink.ROUTE, EVENT_GROUPS)


def links() -> tuple[Link, ...]:
    """Returns all devices, by their index."""
    wanted = netlink.attribute(LINK_WANTED, struct.pack("=I", WITHOUT_STATISTICS))
    with netlink.Session(netlink.ROUTE) as session:
        found = session.dump(GET_LINK, LINK_MESSAGE.pack(0, 0, 0, 0, 0, 0) + wanted)
        addresses = [
            answer.payload
            for family in FAMILIES.values()
            for answer in session.dump(GET_ADDRESS, ADDRESS_MESSAGE.pack(family, 0, 0, 0, 0))
        ]
    return parse_links([answer.payload for answer in found], addresses)


def route(destination: str, source: str | None = None) -> Route | None:
    """Returns the kernel's choice for an address; None where no route leads.

    ``source`` must be an address of the node.
    """
    return routes((destination,), source)[destination]


def routes(destinations: Iterable[str], source: str | None = None) -> dict[str, Route | None]:
    """Returns route() of each address."""
    with netlink.Session(netlink.ROUTE) as session:
        return {each: _route(session, each, source) for each in destinations}


def _route(session: netlink.Session, destination: str, source: str | None) -> Route | None:
    try:
        answer = session.ask(GET_ROUTE, route_request(destination, source))
        found = parse_route(answer.payload, source or "")
        # Costs as much again, so only where there may be several.
        if found is None or not found.gateway:
            return found
        entry = session.ask(GET_ROUTE, route_request(destination, source, MATCHING_ENTRY))
    except OSError as error:
        if error.errno in NO_ROUTE:
            return None
        raise
    others = set(next_hop_devices(entry.payload)) - {found.device_index}
    return replace(found, other_devices=tuple(sorted(others)))


def route_request(destination: str, source: str | None, flags: int = 0) -> bytes:
    """Returns the question for a route."""
    address = ipaddress.ip_address(destination)
    bits = address.max_prefixlen
    attributes = netlink.attribute(ROUTE_DESTINATION, address.packed)
    if source is not None:
        attributes += netlink.attribute(ROUTE_SOURCE, ipaddress.ip_address(source).packed)
    source_bits = 0 if source is None else bits
    family = FAMILIES[address.version]
    return ROUTE_MESSAGE.pack(family, bits, source_bits, 0, 0, 0, 0, 0, flags) + attributes


def next_hop_devices(payload: bytes) -> Iterator[int]:
    """Yields the devices of an entry's next hops, if it has several."""
    hops = netlink.attributes(payload[ROUTE_MESSAGE.size :]).get(ROUTE_NEXT_HOPS, b"")
    while len(hops) >= NEXT_HOP.size:
        length, _, _, device = NEXT_HOP.unpack_from(hops)
        yield device
        hops = hops[netlink.aligned(max(length, NEXT_HOP.size)) :]


def parse_route(payload: bytes, asked_source: str = "") -> Route | None:
    """Parses the kernel's answer, which leaves out the source that was asked for.

    None for a route that forbids, or is not to one machine.
    """
    kind = ROUTE_MESSAGE.unpack_from(payload)[7]
    if kind not in (UNICAST, LOCAL):
        return None
    found = netlink.attributes(payload[ROUTE_MESSAGE.size :])
    return Route(
        device_index=netlink.number(found.get(ROUTE_DEVICE, b"")),
        gateway=address_text(found.get(ROUTE_GATEWAY, found.get(ROUTE_VIA, b"")[2:])),
        source=address_text(found.get(ROUTE_PREFERRED_SOURCE, b"")) or asked_source,
        local=kind == LOCAL,
    )


def parse_links(found: Iterable[bytes], addresses: Iterable[bytes]) -> tuple[Link, ...]:
    """Parses the dumps of devices and of addresses."""
    devices = [(LINK_MESSAGE.unpack_from(each), attributes_of_link(each)) for each in found]
    kinds = {header[3]: kind_of(attributes) for header, attributes in devices}
    of_device = usable_addresses(addresses)
    made = []
    for header, attributes in devices:
        _, _, hardware_type, index, flags, _ = header
        master = netlink.number(attributes.get(LINK_MASTER, b""))
        made.append(
            Link(
                index=index,
                name=netlink.text(attributes[LINK_NAME]),
                hardware_type=hardware_type,
                kind=kinds[index],
                master_index=master,
                master_kind=kinds.get(master, ""),
                mtu=netlink.number(attributes.get(LINK_MTU, b"")),
                up=bool(flags & UP),
                addresses=tuple(of_device.get(index, ())),
            )
        )
    return tuple(sorted(made, key=lambda link: link.index))


def attributes_of_link(payload: bytes) -> dict[int, bytes]:
    """Returns the attributes of a device's message."""
    return netlink.attributes(payload[LINK_MESSAGE.size :])


def kind_of(attributes: Mapping[int, bytes]) -> str:
    """Returns the kind of a device from its attributes."""
    information = netlink.attributes(attributes.get(LINK_INFORMATION, b""))
    return netlink.text(information.get(LINK_KIND, b""))


def usable_addresses(messages: Iterable[bytes]) -> dict[int, list[str]]:
    """Returns {device: addresses to send from}."""
    usable: dict[int, list[str]] = {}
    for payload in messages:
        family, _, flags, scope, index = ADDRESS_MESSAGE.unpack_from(payload)
        found = netlink.attributes(payload[ADDRESS_MESSAGE.size :])
        flags = netlink.number(found[ADDRESS_FLAGS]) if ADDRESS_FLAGS in found else flags
        # On a point-to-point device the plain address is the peer's.
        local = found.get(ADDRESS_LOCAL, found.get(ADDRESS_PEER, b""))
        temporary = family == FAMILIES[6] and flags & TEMPORARY
        if scope == SCOPE_GLOBAL and not flags & UNUSABLE and not temporary:
            usable.setdefault(index, []).append(address_text(local))
    return usable


def address_text(packed: bytes) -> str:
    """Returns an address as text; nothing for none."""
    return str(ipaddress.ip_address(packed)) if packed else ""
