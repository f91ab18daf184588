# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The wish in terms of this node: which devices, which services, with which source addresses. Pure."""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...errors import InvalidInput, NotOurs
from ...holds import held
from ...ipvs.model import AddressKey, RealServer, VirtualService
from ...model import Mode
from ...system.route_netlink import Link, Route
from . import devices, values
from .desired import Desired
from .devices import DeviceWish
from .layout import DEVICES, PROTOCOL_NUMBERS, IpAddress, IpNetwork, Masquerade, ProgramMode
from .selection import Selection
from .state import Settings, Source, Surroundings
from .values import DEFAULT_SOURCE_PORTS

#: A flow that is conntrack's is noted so long while it is quiet: as nf_conntrack keeps a UDP stream.
LEGACY_SECONDS = 180
#: How long the tuple of a connection that both ends have closed is kept: TCP_TIMEWAIT_LEN of the kernel.
CLOSED_SECONDS = 60
#: How often at least a packet of a flow on the fast path takes the slow one, so that IPVS keeps its entry.
SLOWEST_REFRESH_SECONDS = 30
REFRESHES_WITHIN_TIMEOUT = 4

NOBODY: Mapping[int, str] = {}
PROGRAM_MODES = {Mode.ON: ProgramMode.ON, Mode.OFF: ProgramMode.OFF, Mode.DRAIN: ProgramMode.DRAIN}


@dataclass(frozen=True)
class Resolved:
    """The wish in terms of this node; ``attached`` is False where everything is to be native."""

    attached: bool
    mode: ProgramMode
    settings: Settings
    devices: tuple[DeviceWish, ...] = ()
    #: Devices that are left out, by name: why.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Those of them that were wished, and where somebody has the place of our programs.
    occupied: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[AddressKey, Masquerade] = field(default_factory=dict)
    #: Services that stay native, in words: why.
    native: Mapping[str, str] = field(default_factory=dict)
    local_networks: frozenset[IpNetwork] = frozenset()

    @property
    def sources(self) -> dict[int, Source]:
        """What replaces clients' addresses, by the index of the device."""
        return {wish.link.index: wish.source for wish in self.devices if wish.source is not None}


def resolve(
    desired: Desired,
    around: Surroundings,
    selection: Selection,
    hold: Mode | None,
    occupants: Mapping[int, str] = NOBODY,
) -> Resolved:
    """Finds devices and services of a wish, and applies what an operator holds.

    ``occupants`` are by the device's index. Raises InvalidInput when source ports overlap
    those that sockets of the node use, or mark bits that of kube-proxy; NotOurs when
    others have the place of our programs at every device.
    """
    settings = control_settings(desired, around, selection.mark_accepted)
    values.check_mark_accepted(settings.mark_accepted, settings.marks)
    if not (desired.present and desired.bpf):
        return Resolved(False, ProgramMode.OFF, settings)
    wished, left_out, occupied = choose_devices(desired, around, occupants)
    require_a_device(wished, occupied)
    check_ports(wished, around)
    by_index = {wish.link.index: wish for wish in wished}
    names = {link.index: link.name for link in around.links}
    ways = Ways(around.routes, by_index, names)
    native = dict(selection.native)
    services: dict[AddressKey, Masquerade] = {}
    for service, masquerade in selection.services:
        reason = why_native(service, around) or first_unreachable(service, masquerade, ways)
        if reason:
            native[str(service)] = reason
        elif isinstance(service.key, AddressKey):
            services[service.key] = masquerade
    return Resolved(
        attached=True,
        mode=PROGRAM_MODES[held(hold, Mode.ON)],
        settings=settings,
        devices=wished,
        left_out={**left_out, **occupied},
        occupied=occupied,
        services=services,
        native=native,
        local_networks=frozenset((*desired.local_networks, *selection.local_networks)),
    )


def control_settings(desired: Desired, around: Surroundings, mark_accepted: int) -> Settings:
    """Returns what the programs are told, with the timeouts that IPVS itself has.

    ``mark_accepted`` is for a wish that leaves it open.
    """
    timeouts = around.timeouts
    shortest = min(timeouts.tcp, timeouts.tcp_fin, timeouts.udp)
    refresh = max(1, min(SLOWEST_REFRESH_SECONDS, shortest // REFRESHES_WITHIN_TIMEOUT))
    low, high = desired.mark_bits
    return Settings(
        mark_low=low,
        mark_high=high,
        mark_accepted=mark_accepted if desired.mark_accepted is None else desired.mark_accepted,
        fast_path_seconds=refresh if desired.fast_path else 0,
        legacy_seconds=LEGACY_SECONDS,
        tcp_seconds=timeouts.tcp,
        tcp_closing_seconds=timeouts.tcp_fin,
        tcp_closed_seconds=CLOSED_SECONDS,
        udp_seconds=timeouts.udp,
    )


# ---- devices ----


def choose_devices(
    desired: Desired, around: Surroundings, occupants: Mapping[int, str]
) -> tuple[tuple[DeviceWish, ...], dict[str, str], dict[str, str]]:
    """Returns the devices to attach to, and of others why they are left out, or who is there."""
    wished: list[DeviceWish] = []
    left_out: dict[str, str] = {}
    occupied: dict[str, str] = {}
    routed = route_sources(around.routes.values())
    for link in around.links:
        unsuited = devices.why_unsuited(link)
        if unsuited is None and not is_named(desired, link):
            unsuited = "no pattern of ipvs_bpf_devices matches its name"
        if unsuited is None and len(wished) == DEVICES:
            unsuited = f"the table has room for {DEVICES} devices"
        if unsuited is not None:
            left_out[link.name] = unsuited
        elif link.index in occupants:
            occupied[link.name] = f"the {occupants[link.index]} of somebody else has the place of clsact"
        elif devices.is_bridge_port(link):
            wished.append(DeviceWish(link, None))
        else:
            wished.append(DeviceWish(link, source_of(desired, link, routed.get(link.index, {}))))
    return tuple(wished), left_out, occupied


def require_a_device(wished: Iterable[DeviceWish], occupied: Mapping[str, str]) -> None:
    """Raises NotOurs when occupants leave no device that packets could go out by."""
    if occupied and all(wish.source is None for wish in wished):
        raise NotOurs(
            wanted="a device that ipvs_bpf's programs can hang at",
            found="; ".join(f"{name}: {reason}" for name, reason in occupied.items()),
            remedy="have its owner change it to clsact, without shared blocks",
        )


def is_named(desired: Desired, link: Link) -> bool:
    """True when a pattern of the wish names the device."""
    return any(fnmatch.fnmatchcase(link.name, pattern) for pattern in desired.devices)


def route_sources(routes: Iterable[Route | None]) -> dict[int, dict[int, IpAddress]]:
    """Returns {device: {version: address}} that the kernel itself sends from, on its routes to servers."""
    found: dict[int, dict[int, IpAddress]] = {}
    for route in routes:
        if route is not None and route.source:
            address = ipaddress.ip_address(route.source)
            found.setdefault(route.device_index, {}).setdefault(address.version, address)
    return found


def source_of(desired: Desired, link: Link, routed: Mapping[int, IpAddress]) -> Source:
    """Returns what replaces clients' addresses at a device.

    The first pattern that matches decides; what it leaves open is the device's own
    first address, and where the device has none, the one of the kernel's route.
    """
    wish = next((wish for wish in desired.source_addresses if wish.matches(link.name)), None)
    own = {**routed, **devices.first_addresses(link)}
    return Source(
        ipv4=wish.ipv4 if wish is not None and wish.ipv4 else own.get(4),
        ipv6=wish.ipv6 if wish is not None and wish.ipv6 else own.get(6),
        ports=wish.ports if wish is not None else DEFAULT_SOURCE_PORTS,
    )


def check_ports(wished: Iterable[DeviceWish], around: Surroundings) -> None:
    """Raises InvalidInput when an address that sockets use has source ports that they use, too.

    A socket of the node towards a backend, and a session with the same address and
    port, would get each other's replies. The kernel gives sockets that name none the
    first address of a device; any other is dedicated, if nobody binds to it.
    """
    shared = {address for link in around.links for address in devices.first_addresses(link).values()}
    local = around.local_ports
    for wish in wished:
        source = wish.source
        if source is None or source.ports.last < local.first or local.last < source.ports.first:
            continue
        used = [str(address) for address in (source.ipv4, source.ipv6) if address in shared]
        if used:
            raise InvalidInput(
                wanted=f"source ports of {wish.link.name} that no socket of the node is given",
                found=f"{source.ports} with {' and '.join(used)}, and net.ipv4.ip_local_port_range {local}",
                remedy="give other ports, or an address of its own, in ipvs_bpf_source_addresses",
            )


# ---- services ----


@dataclass(frozen=True)
class Ways:
    """How packets leave the node: routes to servers, devices that are attached, names of all."""

    routes: Mapping[str, Route | None]
    attached: Mapping[int, DeviceWish]
    names: Mapping[int, str]


def why_native(service: VirtualService, around: Surroundings) -> str:
    """Returns why a service stays native for what it is; nothing when it can be taken."""
    if service.firewall_mark is not None:
        return "it is one of a firewall mark"
    if service.protocol not in PROTOCOL_NUMBERS:
        return f"its protocol is {service.protocol}"
    if "ops" in service.flags:
        return "IPVS schedules each of its packets (ops)"
    others = sorted({server.forwarding for server in service.servers} - {"masquerade"})
    if others:
        return f"forwarding by {' and '.join(others).replace('_', ' ')} needs no conntrack"
    application = around.applications.get((service.protocol, service.port or 0))
    return f"IPVS changes the contents of its packets ({application})" if application else ""


def first_unreachable(service: VirtualService, masquerade: Masquerade, ways: Ways) -> str:
    """Returns why a service stays native for where its servers are; nothing when it can be taken."""
    reasons = (why_unreachable(server, masquerade, ways) for server in service.servers)
    return next((reason for reason in reasons if reason), "")


def why_unreachable(server: RealServer, masquerade: Masquerade, ways: Ways) -> str:
    """Returns why a real server keeps its service native; nothing when packets to it can be handled."""
    route = ways.routes.get(server.address)
    if route is None:
        return f"no route leads to {server.address}"
    if route.local:
        return f"{server.address} is this node itself"
    for index in (route.device_index, *route.other_devices):
        wish = ways.attached.get(index)
        name = ways.names.get(index, f"device {index}")
        if wish is None or wish.source is None:
            return f"the way to {server.address} is {name}, which is left out"
        version = 6 if ":" in server.address else 4
        if masquerade is not Masquerade.NEVER and wish.source.address(version) is None:
            return f"{name}, the way to {server.address}, has no IPv{version} address to masquerade with"
    return ""
