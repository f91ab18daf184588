# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/include/meshaccel/sockops_adoption.h, checked against BTF at load."""

from __future__ import annotations

import ctypes
import enum

from ..layout import Handshake, SocketState

OBJECT_NAME = "sockops_adoption"
PROGRAM = "meshaccel_adopt"


class Step(enum.IntEnum):
    """How far the adoption of one socket is."""

    PLANNED = 0
    INSERTED = 1
    READY = 2
    PAIRED = 3
    WITHDRAW = 4
    WITHDRAWN = 5
    REFUSED = 6


class Adoption(ctypes.Structure):
    """One for each socket to adopt, under its cookie; times in nanoseconds."""

    _fields_ = [
        ("peer_cookie", ctypes.c_uint64),
        ("peer_socket", ctypes.c_uint64),
        ("handshake", Handshake),
        ("policy", ctypes.c_uint32),
        ("peer_policy", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("inserted_at", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "sockops_handshake": Handshake,
    "sockops_socket_state": SocketState,
    "sockops_adoption": Adoption,
}
