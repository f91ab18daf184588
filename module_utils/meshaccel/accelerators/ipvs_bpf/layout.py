# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/include/meshaccel/ipvs_bpf.h, checked against BTF at load."""

from __future__ import annotations

import ctypes
import enum
import ipaddress
import socket
from typing import Union

from ...bpf.object_file import DIGEST_DIGITS

DEVICES = 4096
LOCAL_NETWORKS = 1024
SERVICES = 65536
#: A session has up to three flows: see FlowKind.
FLOWS_PER_SESSION = 3
#: Of those that end by themselves; they may be in the queue for a while longer.
AGEING_PER_SESSION = 2
#: The bits of version before those of the address, in a network's length.
VERSION_BITS = 32
#: IPv4 as v4-mapped IPv6 (RFC 4291, 2.5.5.2).
MAPPED_BITS = 96

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
IpNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class ProgramMode(str, enum.Enum):
    """What the programs do: enum ipvs_mode. OBSERVE is passed through on the way to ON."""

    OFF = "off"
    ON = "on"
    DRAIN = "drain"
    OBSERVE = "observe"


MODE_NUMBERS = {ProgramMode.OFF: 0, ProgramMode.ON: 1, ProgramMode.DRAIN: 2, ProgramMode.OBSERVE: 3}
MODES = {number: mode for mode, number in MODE_NUMBERS.items()}


class Masquerade(str, enum.Enum):
    """Whether the client's address is replaced: enum ipvs_masquerade."""

    NEVER = "never"
    ALWAYS = "always"
    #: Unless the client is in a local network.
    REMOTE = "remote"


MASQUERADE_NUMBERS = {Masquerade.NEVER: 1, Masquerade.ALWAYS: 2, Masquerade.REMOTE: 3}
MASQUERADES = {number: masquerade for masquerade, number in MASQUERADE_NUMBERS.items()}

PROTOCOL_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
PROTOCOLS = {int(number): name for name, number in PROTOCOL_NUMBERS.items()}


class Point(enum.IntEnum):
    """Where a packet is seen."""

    INGRESS = 1
    EGRESS = 2


class FlowKind(enum.IntEnum):
    """Whose a flow is: enum ipvs_flow_kind."""

    REQUEST = 1
    TRANSLATION = 2
    REPLY = 3
    LEGACY = 4
    RESERVED = 5


#: Of enum ipvs_flow_flag.
MASQUERADED = 1
CLIENT_FINISHED = 2
BACKEND_FINISHED = 4
RESET = 8
LINKED = 16


class Control(ctypes.Structure):
    """One for the node. Seconds unless said otherwise."""

    _fields_ = [
        ("mode", ctypes.c_uint32),
        ("mark_low", ctypes.c_uint32),
        ("mark_high", ctypes.c_uint32),
        ("mark_accepted", ctypes.c_uint32),
        ("fast_path_seconds", ctypes.c_uint32),
        ("legacy_seconds", ctypes.c_uint32),
        ("tcp_seconds", ctypes.c_uint32),
        ("tcp_closing_seconds", ctypes.c_uint32),
        ("tcp_closed_seconds", ctypes.c_uint32),
        ("udp_seconds", ctypes.c_uint32),
        ("object_digest", ctypes.c_uint64),
    ]

    @property
    def digest(self) -> str:
        """The running object's digest, in hexadecimal."""
        return f"{self.object_digest:0{DIGEST_DIGITS}x}"


class Address(ctypes.Structure):
    """An address in network order; all zero means none."""

    _fields_ = [("word", ctypes.c_uint32 * 4)]


class Device(ctypes.Structure):
    """What replaces the client's address at a device, and which ports; host byte order, both inclusive."""

    _fields_ = [
        ("source_ipv4", Address),
        ("source_ipv6", Address),
        ("first_port", ctypes.c_uint16),
        ("last_port", ctypes.c_uint16),
        ("reserved", ctypes.c_uint32),
    ]


class ServiceKey(ctypes.Structure):
    """A virtual service; the port is in network order."""

    _fields_ = [
        ("address", Address),
        ("port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    ]


class Service(ctypes.Structure):
    """How a service's clients are masqueraded, and how many sessions it has had here."""

    _fields_ = [("masquerade", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("sessions", ctypes.c_uint64)]


class Network(ctypes.Structure):
    """A local network; the length counts the bits of version and address."""

    _fields_ = [("prefix_length", ctypes.c_uint32), ("version", ctypes.c_uint32), ("address", Address)]


class FlowKey(ctypes.Structure):
    """One direction of a session at one point; ports are in network order."""

    _fields_ = [
        ("source", Address),
        ("destination", Address),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("point", ctypes.c_uint8),
        ("reserved", ctypes.c_uint16),
    ]


class FlowKeyIpv4(ctypes.Structure):
    """The same of IPv4: addresses of four bytes, in network order."""

    _fields_ = [
        ("source", ctypes.c_uint8 * 4),
        ("destination", ctypes.c_uint8 * 4),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("point", ctypes.c_uint8),
        ("reserved", ctypes.c_uint16),
    ]


class Timer(ctypes.Structure):
    """The kernel's struct bpf_timer, which it shows to nobody."""

    _fields_ = [("opaque", ctypes.c_uint64 * 2)]


class Flow(ctypes.Structure):
    """What is known of a flow; begun and last_seen are nanoseconds of CLOCK_MONOTONIC."""

    _fields_ = [
        ("begun", ctypes.c_uint64),
        ("last_seen", ctypes.c_uint64),
        ("new_source", Address),
        ("new_destination", Address),
        ("new_source_port", ctypes.c_uint16),
        ("new_destination_port", ctypes.c_uint16),
        ("kind", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
        ("mtu", ctypes.c_uint16),
        ("flags", ctypes.c_uint32),
        ("slow_second", ctypes.c_uint32),
        ("output_device", ctypes.c_uint32),
        ("next_hop", Address),
    ]


class Ageing(ctypes.Structure):
    """That a flow is to be looked at, whether it is over; nanoseconds of CLOCK_MONOTONIC."""

    _fields_ = [("key", FlowKey), ("begun", ctypes.c_uint64), ("due", ctypes.c_uint64)]


class Clock(ctypes.Structure):
    """What the flows age by; it runs where the kernel has bpf_timer."""

    _fields_ = [("timer", Timer), ("runs", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


class FragmentKey(ctypes.Structure):
    """What fragments of one packet have in common."""

    _fields_ = [
        ("source", Address),
        ("destination", Address),
        ("identification", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
    ]


class Fragment(ctypes.Structure):
    """What the first fragment's flow made of the packet."""

    _fields_ = [("new_destination", Address), ("mark", ctypes.c_uint32)]


class Note(ctypes.Structure):
    """What a CPU knows of a request between its ingress and its egress."""

    _fields_ = [
        ("request", FlowKey),
        ("backend", Address),
        ("source", Address),
        ("backend_port", ctypes.c_uint16),
        ("source_port", ctypes.c_uint16),
        ("flags", ctypes.c_uint32),
        ("has_request", ctypes.c_bool),
    ]


class Counters(ctypes.Structure):
    """Per CPU; each reason for which a flow is conntrack's, or a packet dropped, has its own."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "sessions",
            "sessions_ended",
            "masqueraded",
            "hairpins",
            "native_table_full",
            "native_legacy",
            "native_draining",
            "native_unknown",
            "ports_in_use",
            "ports_taken_over",
            "ports_exhausted",
            "ports_reserved",
            "sessions_replaced",
            "sessions_clashed",
            "dropped_no_address",
            "dropped_rewrite_failed",
            "errors_inward",
            "errors_outward",
            "fragments_inward",
            "fragments_outward",
            "fast_path_flows",
        )
    ]


COUNTER_NAMES: tuple[str, ...] = tuple(field[0] for field in Counters._fields_)

#: struct name in the object's BTF: our declaration.
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "ipvs_control": Control,
    "ipvs_address": Address,
    "ipvs_device": Device,
    "ipvs_service_key": ServiceKey,
    "ipvs_service": Service,
    "ipvs_network": Network,
    "ipvs_flow_key": FlowKey,
    "ipvs_flow_key_ipv4": FlowKeyIpv4,
    "ipvs_flow": Flow,
    "ipvs_ageing": Ageing,
    "ipvs_clock": Clock,
    "ipvs_fragment_key": FragmentKey,
    "ipvs_fragment": Fragment,
    "ipvs_counters": Counters,
    "note": Note,
}

#: map name: (key size, value size) in bytes. A loaded version that differs cannot be updated in place; it
#: is replaced.
MAP_SIZES: dict[str, tuple[int, int]] = {
    "control": (4, ctypes.sizeof(Control)),
    "devices": (4, ctypes.sizeof(Device)),
    "services": (ctypes.sizeof(ServiceKey), ctypes.sizeof(Service)),
    "local_networks": (ctypes.sizeof(Network), 4),
    "flows_ipv4": (ctypes.sizeof(FlowKeyIpv4), ctypes.sizeof(Flow)),
    "flows_ipv6": (ctypes.sizeof(FlowKey), ctypes.sizeof(Flow)),
    "fragments": (ctypes.sizeof(FragmentKey), ctypes.sizeof(Fragment)),
    "counters": (4, ctypes.sizeof(Counters)),
    "notes": (4, ctypes.sizeof(Note)),
    "ageing": (0, ctypes.sizeof(Ageing)),
    "clock": (4, ctypes.sizeof(Clock)),
}

#: How many entries a map has for each session that the operator allows, where it depends on that.
ENTRIES_PER_SESSION: dict[str, int] = {
    "flows_ipv4": FLOWS_PER_SESSION,
    "flows_ipv6": FLOWS_PER_SESSION,
    "ageing": AGEING_PER_SESSION,
}

INGRESS_PROGRAM = "meshaccel_ipvs_ingress"
EGRESS_PROGRAM = "meshaccel_ipvs_egress"
#: What the programs for devices without Ethernet headers end in.
BARE = "_bare"
PROGRAMS: tuple[str, ...] = (
    INGRESS_PROGRAM,
    EGRESS_PROGRAM,
    INGRESS_PROGRAM + BARE,
    EGRESS_PROGRAM + BARE,
)
#: Needs bpf_timer (Linux 5.15); without it the follow daemon ages.
AGEING_PROGRAM = "meshaccel_ipvs_ageing"


def packed(address: IpAddress | None) -> Address:
    """Returns an address as the programs have it; None means none."""
    if address is None:
        return Address()
    if address.version == 4:
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return Address.from_buffer_copy(address.packed)


def unpacked(address: Address) -> IpAddress | None:
    """Returns what packed() was given."""
    mapped = ipaddress.IPv6Address(bytes(address))
    if not int(mapped):
        return None
    return mapped.ipv4_mapped or mapped


def packed_network(network: IpNetwork) -> Network:
    """Returns a network as a key of the trie."""
    length = VERSION_BITS + network.prefixlen + (MAPPED_BITS if network.version == 4 else 0)
    return Network(
        prefix_length=length,
        version=socket.htonl(network.version),
        address=packed(network.network_address),
    )


def unpacked_network(key: Network) -> IpNetwork:
    """Returns what packed_network() was given."""
    address = ipaddress.IPv6Address(bytes(key.address))
    length = key.prefix_length - VERSION_BITS
    if socket.ntohl(key.version) == 4:
        return ipaddress.IPv4Network((int(address) & 0xFFFFFFFF, length - MAPPED_BITS))
    return ipaddress.IPv6Network((int(address), length))
