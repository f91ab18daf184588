# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/include/meshaccel/sockops_inspection.h, checked against BTF at load."""

from __future__ import annotations

import ctypes

from .. import layout as sockops

PROGRAM = "meshaccel_inspect"
STATES_MAP = "socket_states"
PROTOCOL_NAME_BYTES = 16

#: enum sockops_inspected_flag.
MULTIPATH = 1 << 0
CORK = 1 << 1
NO_DELAY = 1 << 2
ZERO_COPY = 1 << 3
URGENT = 1 << 4
REPAIR = 1 << 5
SOCKET_MAP = 1 << 6
STATE = 1 << 7


class Record(ctypes.Structure):
    """What the iterator writes for one socket."""

    _fields_ = [
        ("cookie", ctypes.c_uint64),
        ("socket", ctypes.c_uint64),
        ("cgroup_id", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("bytes_received", ctypes.c_uint64),
        ("bytes_sent", ctypes.c_uint64),
        ("network_namespace", ctypes.c_uint32),
        ("family", ctypes.c_uint32),
        ("tcp_state", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("local_address", ctypes.c_uint8 * 16),
        ("remote_address", ctypes.c_uint8 * 16),
        ("local_port", ctypes.c_uint32),
        ("remote_port", ctypes.c_uint32),
        ("receive_sequence", ctypes.c_uint32),
        ("send_base_sequence", ctypes.c_uint32),
        ("next_receive_sequence", ctypes.c_uint32),
        ("copied_sequence", ctypes.c_uint32),
        ("write_sequence", ctypes.c_uint32),
        ("unacknowledged_sequence", ctypes.c_uint32),
        ("receive_memory", ctypes.c_int32),
        ("receive_low_water_mark", ctypes.c_int32),
        ("upper_layer_protocol", ctypes.c_char * PROTOCOL_NAME_BYTES),
        ("state", sockops.SocketState),
    ]


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "sockops_handshake": sockops.Handshake,
    "sockops_socket_state": sockops.SocketState,
    "sockops_inspected_socket": Record,
}
