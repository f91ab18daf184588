# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's table of denied networks: read and written."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from ....bpf import maps
from ....ports import PortRange
from .. import layout
from .networks import IPV4_MAPPED_BITS, DeniedNetwork

VERSION_BITS = 32
IPV4 = 4
MAPPED_PREFIX = bytes(10) + b"\xff\xff"
ZERO = 0

Table = maps.Map[layout.Network, layout.DeniedPorts]
Entries = dict[bytes, bytes]


def read(directory: str) -> tuple[DeniedNetwork, ...]:
    """Returns the denied networks, sorted, from the maps pinned in a directory."""
    with open_table(directory) as table:
        entries = read_entries(table)
    return tuple(sorted(rule_of(key, value) for key, value in entries.items()))


def write(directory: str, rules: Iterable[DeniedNetwork]) -> None:
    """Makes the table what these rules say; they are as flatten() returns them.

    A network that stays denied is never absent meanwhile: additions come first.
    """
    wanted = dict(map(entry_of, rules))
    with open_table(directory) as table:
        present = read_entries(table)
        for key, value in wanted.items():
            if present.get(key) != value:
                table.write(layout.Network.from_buffer_copy(key), layout.DeniedPorts.from_buffer_copy(value))
        write_count(directory, len(wanted))
        for key in present.keys() - wanted.keys():
            table.delete(layout.Network.from_buffer_copy(key))


def write_count(directory: str, networks: int) -> None:
    """Tells the programs how many networks there are: with none they do not look."""
    path = os.path.join(directory, "denial")
    with maps.Map.pinned(path, ctypes.c_uint32, layout.Denial) as denial:
        denial.write(ctypes.c_uint32(ZERO), layout.Denial(networks=networks))


def open_table(directory: str) -> Table:
    """Opens the pinned table."""
    path = os.path.join(directory, "denied_networks")
    return maps.Map.pinned(path, layout.Network, layout.DeniedPorts)


def read_entries(table: Table) -> Entries:
    """Returns the table's entries as bytes, which can be compared."""
    keys = list(table.keys())
    found = ((key, table.read(key)) for key in keys)
    return {bytes(key): bytes(value) for key, value in found if value is not None}


def entry_of(rule: DeniedNetwork) -> tuple[bytes, bytes]:
    """Returns a rule as the kernel's entry."""
    # Costs a run without denied networks nothing.
    import ipaddress

    network = ipaddress.ip_network(rule.network)
    packed, length = network.network_address.packed, network.prefixlen
    if network.version == IPV4:
        packed, length = MAPPED_PREFIX + packed, length + IPV4_MAPPED_BITS
    words = (ctypes.c_uint32 * 4).from_buffer_copy(packed)
    key = layout.Network(prefix_length=VERSION_BITS + length, version=network.version, address=words)
    ranges = [layout.PortRange(ports.first, ports.last) for ports in rule.ports]
    value = layout.DeniedPorts(
        port_range_count=len(ranges), port_ranges=(layout.PortRange * layout.PORT_RANGES)(*ranges)
    )
    return bytes(key), bytes(value)


def rule_of(key: bytes, value: bytes) -> DeniedNetwork:
    """Returns the kernel's entry as a rule."""
    import ipaddress

    network = layout.Network.from_buffer_copy(key)
    packed, length = bytes(network.address), network.prefix_length - VERSION_BITS
    if network.version == IPV4:
        packed, length = packed[len(MAPPED_PREFIX) :], length - IPV4_MAPPED_BITS
    ports = layout.DeniedPorts.from_buffer_copy(value)
    return DeniedNetwork(
        str(ipaddress.ip_network((packed, length))),
        tuple(PortRange(each.first, each.last) for each in ports.port_ranges[: ports.port_range_count]),
    )
