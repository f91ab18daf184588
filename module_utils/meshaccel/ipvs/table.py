# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's table of services as the kernel has it, without pyroute2.

One dump has what services are, one read of /proc/net/ip_vs their servers. What that
does not show of servers takes a request for each service, so it is asked only where
somebody has a use for it, where it shows that there is more, and where it leaves a
service out: the kernel skips some when another network namespace has services too.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection, Iterable

from ..system.generic_netlink import NESTED, GenericNetlink, native, network_number
from ..system.netlink import attribute, attributes, number, text
from . import interface, kernel_module, listing
from .model import AddressKey, MarkKey, RealServer, ServerKey, ServiceKey, VirtualService


def read(detailed: Collection[ServiceKey] = ()) -> tuple[VirtualService, ...]:
    """Returns the services of this network namespace. Changes nothing.

    Servers are sorted. Empty while the kernel could load IPVS and has not. Thresholds are asked for only of
    the services in ``detailed``, of firewall marks and with tunnels; elsewhere they are 0.

    Raises Unsupported when the kernel cannot have IPVS.
    """
    if not kernel_module.loaded():
        kernel_module.require_available()
        return ()
    with GenericNetlink(interface.FAMILY) as netlink:
        services = [parse_service(found) for found in netlink.dump(interface.GET_SERVICE)]
        listed = listing.read(kernel_module.LISTING)
        found = (with_servers(service, listed, detailed, netlink) for service in services)
        return tuple(service for service in found if service is not None)


def with_servers(
    service: VirtualService,
    listed: listing.Servers,
    detailed: Collection[ServiceKey],
    netlink: GenericNetlink,
) -> VirtualService | None:
    """Adds its servers to a service, as listed where that is all there is to know; None when it is gone."""
    key = service.key
    if isinstance(key, AddressKey) and key in listed and key not in detailed:
        servers = sorted(entry.server for entry in listed[key])
        if not any(server.forwarding == "tunnel" for server in servers):
            return service._replace(servers=tuple(servers))
    try:
        servers = sorted(map(parse_server, netlink.dump(interface.GET_SERVER, identity(key))))
    except ProcessLookupError:
        return None
    return service._replace(servers=tuple(servers))


def connections(keys: Iterable[ServiceKey]) -> dict[tuple[ServiceKey, ServerKey], int]:
    """Returns how many connections servers of these services have now; of a service that is gone none.

    Of TCP and SCTP those that are established. IPVS counts all of UDP as inactive, and what a
    firewall mark carries can be any: there it is the sum.
    """
    found: dict[tuple[ServiceKey, ServerKey], int] = {}
    with GenericNetlink(interface.FAMILY) as netlink:
        for key in keys:
            with contextlib.suppress(ProcessLookupError):
                for answer in netlink.dump(interface.GET_SERVER, identity(key)):
                    found[key, parse_server(answer).key] = count(answer, key)
    return found


def count(answer: bytes, key: ServiceKey) -> int:
    """Returns the connections that one server has."""
    found = attributes(attributes(answer)[interface.SERVER])
    active = number(found[interface.SERVER_ACTIVE_CONNECTIONS])
    if isinstance(key, AddressKey) and key.protocol != "udp":
        return active
    return active + number(found[interface.SERVER_INACTIVE_CONNECTIONS])


def identity(key: ServiceKey) -> bytes:
    """Returns the attribute by which a request names a service."""
    if isinstance(key, MarkKey):
        family = interface.FAMILIES[key.family]
        which = attribute(interface.SERVICE_FIREWALL_MARK, native(key.firewall_mark, 4))
    else:
        family = socket.AF_INET6 if ":" in key.address else socket.AF_INET
        which = (
            attribute(interface.SERVICE_PROTOCOL, native(interface.PROTOCOLS[key.protocol], 2))
            + attribute(interface.SERVICE_ADDRESS, socket.inet_pton(family, key.address))
            + attribute(interface.SERVICE_PORT, key.port.to_bytes(2, "big"))
        )
    return attribute(
        interface.SERVICE | NESTED, attribute(interface.SERVICE_FAMILY, native(family, 2)) + which
    )


def parse_service(answer: bytes) -> VirtualService:
    """Returns a service, without its servers, from the dump's message."""
    found = attributes(attributes(answer)[interface.SERVICE])
    family = number(found[interface.SERVICE_FAMILY])
    scheduler = text(found[interface.SERVICE_SCHEDULER])
    bits = number(found[interface.SERVICE_FLAGS][:4])
    persistent = bool(bits & interface.PERSISTENT)
    engine = text(found.get(interface.SERVICE_ENGINE, b""))
    netmask = found[interface.SERVICE_NETMASK]
    mark = found.get(interface.SERVICE_FIREWALL_MARK)
    return VirtualService(
        protocol=None if mark else protocol_name(found),
        address=None if mark else parse_address(family, found[interface.SERVICE_ADDRESS]),
        port=None if mark else network_number(found[interface.SERVICE_PORT]),
        firewall_mark=number(mark) if mark else None,
        family=interface.FAMILY_NAMES[family],
        scheduler=scheduler,
        flags=flag_names(bits, scheduler),
        persistence_timeout=number(found[interface.SERVICE_TIMEOUT]) if persistent else None,
        persistence_netmask=parse_netmask(family, netmask) if persistent else None,
        persistence_engine=engine or None,
    )


def protocol_name(found: dict[int, bytes]) -> str:
    """Returns a protocol's name; its number where the kernel has one of its own."""
    protocol = number(found[interface.SERVICE_PROTOCOL])
    return interface.PROTOCOL_NAMES.get(protocol, str(protocol))


def flag_names(bits: int, scheduler: str) -> tuple[str, ...]:
    """Returns the names of flags; of those that mean nothing to the scheduler, ipvsadm's: flag-1."""
    if not bits & ~(interface.PERSISTENT | interface.HASHED):
        return ()
    names = [interface.ONE_PACKET_NAME] if bits & interface.ONE_PACKET else []
    known = {bit: name for name, (owner, bit) in interface.FLAG_NAMES.items() if owner == scheduler}
    for position, bit in enumerate(interface.SCHEDULER_FLAGS, start=1):
        if bits & bit:
            names.append(known.get(bit, f"flag-{position}"))
    return tuple(sorted(names))


def parse_server(answer: bytes) -> RealServer:
    """Returns a server from the dump's message."""
    found = attributes(attributes(answer)[interface.SERVER])
    forwarding = interface.FORWARDING_NAMES.get(
        number(found[interface.SERVER_FORWARDING]) & interface.FORWARDING_MASK, "unknown"
    )
    server = RealServer(
        address=parse_address(number(found[interface.SERVER_FAMILY]), found[interface.SERVER_ADDRESS]),
        port=network_number(found[interface.SERVER_PORT]),
        forwarding=forwarding,
        weight=number(found[interface.SERVER_WEIGHT]),
        upper_threshold=number(found[interface.SERVER_UPPER_THRESHOLD]),
        lower_threshold=number(found[interface.SERVER_LOWER_THRESHOLD]),
    )
    if forwarding != "tunnel":
        return server
    kind = number(found.get(interface.SERVER_TUNNEL_TYPE, b"\0"))
    checksum = number(found.get(interface.SERVER_TUNNEL_FLAGS, b"\0"))
    return server._replace(
        tunnel_type=interface.TUNNEL_TYPE_NAMES.get(kind, str(kind)),
        tunnel_port=network_number(found.get(interface.SERVER_TUNNEL_PORT, b"\0")),
        tunnel_checksum=interface.TUNNEL_CHECKSUM_NAMES.get(checksum, str(checksum)),
    )


def parse_address(family: int, value: bytes) -> str:
    """Returns an address as text; the kernel gives IPv4's in the room of IPv6's."""
    return socket.inet_ntop(family, value[: 4 if family == socket.AF_INET else 16])


def parse_netmask(family: int, value: bytes) -> str:
    """Returns a netmask; IPv6's is a prefix length in the machine's byte order, under the same attribute."""
    return socket.inet_ntoa(value) if family == socket.AF_INET else str(number(value))
