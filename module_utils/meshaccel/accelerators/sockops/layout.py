# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/include/meshaccel/sockops.h, checked against BTF at load."""

from __future__ import annotations

import ctypes

from ...bpf.loaders import kernel_has_btf
from ...model import Mode

POLICIES = 256
PORT_RANGES = 16
DENIED_NETWORKS = 65536
#: Never handed out: what a cgroup has before its policy was written.
UNCONFIGURED_POLICY = 0
#: Two sockets for each connection between two sockets of this node.
SOCKETS_PER_CONNECTION = 2
DIGEST_BYTES = 8

MODE_NUMBERS = {Mode.OFF: 0, Mode.ON: 1, Mode.DRAIN: 2}
MODES = {number: mode for mode, number in MODE_NUMBERS.items()}


class Control(ctypes.Structure):
    """One for the node."""

    _fields_ = [
        ("mode", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("object_digest", ctypes.c_uint64),
    ]

    @property
    def digest(self) -> str:
        """The running object's digest, in hexadecimal."""
        return f"{self.object_digest:0{DIGEST_BYTES * 2}x}"


class PortRange(ctypes.Structure):
    """Both ends inclusive, host byte order."""

    _fields_ = [("first", ctypes.c_uint16), ("last", ctypes.c_uint16)]


class Policy(ctypes.Structure):
    """One for each opted-in cgroup."""

    _fields_ = [
        ("cgroup_id", ctypes.c_uint64),
        ("mode", ctypes.c_uint32),
        ("receive_memory_limit", ctypes.c_uint32),
        ("port_range_count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("port_ranges", PortRange * PORT_RANGES),
    ]


class Network(ctypes.Structure):
    """A network that may be denied; the length counts the bits of version and address."""

    _fields_ = [
        ("prefix_length", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("address", ctypes.c_uint32 * 4),
    ]


class DeniedPorts(ctypes.Structure):
    """The ports that are denied in a network; no range means every port."""

    _fields_ = [
        ("port_range_count", ctypes.c_uint32),
        ("port_ranges", PortRange * PORT_RANGES),
    ]


class Denial(ctypes.Structure):
    """How many networks are denied."""

    _fields_ = [("networks", ctypes.c_uint32)]


class Handshake(ctypes.Structure):
    """The sequence numbers of the first byte each way."""

    _fields_ = [("receive_sequence", ctypes.c_uint32), ("send_sequence", ctypes.c_uint32)]


class End(ctypes.Structure):
    """What an end publishes for its peer until that has found it."""

    _fields_ = [
        ("socket", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("client_address", ctypes.c_uint32 * 4),
        ("client_port", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("port_matched", ctypes.c_uint32),
        ("slot", ctypes.c_uint32),
    ]


class SocketState(ctypes.Structure):
    """What a tracked socket remembers."""

    _fields_ = [
        ("peer_socket", ctypes.c_uint64),
        ("peer_cookie", ctypes.c_uint64),
        ("status", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("peer_policy", ctypes.c_uint32),
        ("recent_messages", ctypes.c_uint32),
        ("recent_bytes", ctypes.c_uint64),
        ("stream_score", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("redirected_bytes", ctypes.c_uint64),
        ("tcp_bytes", ctypes.c_uint64),
        ("handshake", Handshake),
        ("socket", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("stretch_tcp_bytes", ctypes.c_uint64),
        ("stretch_redirected_bytes", ctypes.c_uint64),
        ("last_message", ctypes.c_uint32),
        ("has_callbacks", ctypes.c_uint32),
        ("slot", ctypes.c_uint32),
        ("peer_slot", ctypes.c_uint32),
    ]


class Counters(ctypes.Structure):
    """Per policy and CPU; each reason to stay on TCP has its own."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "connections_paired",
            "connections_translated",
            "sockets_inserted",
            "sockets_evicted",
            "skipped_mode",
            "skipped_port",
            "skipped_no_waiting_peer",
            "skipped_multipath",
            "skipped_table_full",
            "skipped_duplicate",
            "skipped_denied",
            "skipped_other",
            "redirected_messages",
            "redirected_bytes",
            "tcp_bytes",
            "tcp_messages_mode",
            "tcp_messages_no_peer",
            "tcp_messages_order",
            "tcp_messages_memory",
            "tcp_messages_peer_gone",
            "tcp_messages_leaving",
            "tcp_messages_adoption",
            "sockets_handed_back",
        )
    ]


COUNTER_NAMES: tuple[str, ...] = tuple(field[0] for field in Counters._fields_)

#: struct name in the object's BTF: our declaration.
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "sockops_control": Control,
    "sockops_port_range": PortRange,
    "sockops_policy": Policy,
    "sockops_network": Network,
    "sockops_denied_ports": DeniedPorts,
    "sockops_denial": Denial,
    "sockops_handshake": Handshake,
    "sockops_end": End,
    "sockops_socket_state": SocketState,
    "sockops_counters": Counters,
}

#: map name: (key size, value size) in bytes. A loaded version that differs
#: cannot be updated in place; it is replaced.
MAP_SIZES: dict[str, tuple[int, int]] = {
    "control": (4, ctypes.sizeof(Control)),
    "policies": (4, ctypes.sizeof(Policy)),
    "cgroup_policies": (8, 4),
    "counters": (4, ctypes.sizeof(Counters)),
    "denial": (4, ctypes.sizeof(Denial)),
    "denied_networks": (ctypes.sizeof(Network), ctypes.sizeof(DeniedPorts)),
    "sockets": (8, 8),
    "socket_slots": (4, 8),
    "ends": (ctypes.sizeof(Handshake), ctypes.sizeof(End)),
    "socket_states": (4, ctypes.sizeof(SocketState)),
    "message_logic": (4, 4),
}

PROGRAMS: tuple[str, ...] = (
    "meshaccel_connection",
    "meshaccel_message",
    "meshaccel_message_logic",
)
#: Those that go over the table's sockets, which takes a kernel with BTF.
ITERATORS: tuple[str, ...] = ("meshaccel_release", "meshaccel_deny")


def programs() -> tuple[str, ...]:
    """Returns the programs that this kernel takes; each has a pin."""
    return (*PROGRAMS, *(ITERATORS if kernel_has_btf() else ()))
