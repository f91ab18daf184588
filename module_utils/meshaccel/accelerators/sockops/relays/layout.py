# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The structures of bpf/include/meshaccel/sockops_relay.h, checked against BTF at load."""

from __future__ import annotations

import ctypes

SIDES = 2
QUEUE_ENTRIES = 256
#: Counted for each side: that of the server at which a connection or a byte arrived.
SIDED_COUNTER_NAMES: tuple[str, ...] = ("connections", "joined_bytes", "own_bytes")
COUNTER_NAMES: tuple[str, ...] = (
    "connections_joined",
    "connections_parted",
    "skipped_mode",
    "skipped_multipath",
    "skipped_table_full",
    "skipped_queue_full",
    "skipped_blocking_reader",
    "acknowledgements_held",
    "packets_dropped",
    "repeated_bytes",
    "connections_broken",
)


class Address(ctypes.Structure):
    """A server's address; ``address`` in network order, ``port`` in host order."""

    _fields_ = [("address", ctypes.c_uint32 * 4), ("port", ctypes.c_uint32)]


class Place(ctypes.Structure):
    """Which relay's server an address is."""

    _fields_ = [("relay", ctypes.c_uint32), ("side", ctypes.c_uint32)]


class Version(ctypes.Structure):
    """The version of the running object."""

    _fields_ = [("object_digest", ctypes.c_uint64)]


class Setting(ctypes.Structure):
    """One for each relay; generation 0: the index is free."""

    _fields_ = [("generation", ctypes.c_uint64)]


class End(ctypes.Structure):
    """What is known of one accepted connection."""

    _fields_ = [
        ("socket", ctypes.c_uint64),
        ("partner", ctypes.c_uint64),
        ("generation", ctypes.c_uint64),
        ("cgroup_id", ctypes.c_uint64),
        ("relay", ctypes.c_uint32),
        ("side", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("given_bytes", ctypes.c_uint32),
        ("sent_before", ctypes.c_uint32),
        ("next_sequence", ctypes.c_uint32),
        ("early_until", ctypes.c_uint32),
        ("accepted", ctypes.c_uint32),
        ("settled", ctypes.c_uint32),
        ("broken", ctypes.c_uint32),
        ("acknowledged", ctypes.c_uint64),
    ]


class Queue(ctypes.Structure):
    """The connections of one side that wait for the other side's."""

    _fields_ = [
        ("lock", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("side", ctypes.c_uint32),
        ("place", ctypes.c_uint32),
        ("generation", ctypes.c_uint64),
        ("waiting", ctypes.c_uint64 * QUEUE_ENTRIES),
    ]


class Counters(ctypes.Structure):
    """Per relay and CPU."""

    _fields_ = [
        *((name, ctypes.c_uint64 * SIDES) for name in SIDED_COUNTER_NAMES),
        *((name, ctypes.c_uint64) for name in COUNTER_NAMES),
    ]


#: struct name in the object's BTF: our declaration.
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "sockops_relay_address": Address,
    "sockops_relay_place": Place,
    "sockops_relay_version": Version,
    "sockops_relay_setting": Setting,
    "sockops_relay_end": End,
    "sockops_relay_queue": Queue,
    "sockops_relay_counters": Counters,
}

#: Maps of the accelerator itself that the relay's programs use.
SHARED_MAPS: tuple[str, ...] = ("control", "policies", "cgroup_policies")

#: map name: (key size, value size) in bytes. A loaded version that differs
#: cannot be updated in place; it is replaced.
MAP_SIZES: dict[str, tuple[int, int]] = {
    "relay_addresses": (ctypes.sizeof(Address), ctypes.sizeof(Place)),
    "relay_version": (4, ctypes.sizeof(Version)),
    "relay_settings": (4, ctypes.sizeof(Setting)),
    "relay_queues": (4, ctypes.sizeof(Queue)),
    "relay_counters": (4, ctypes.sizeof(Counters)),
    "relay_sockets": (8, 8),
    "relay_ends": (8, ctypes.sizeof(End)),
    "relay_logic": (4, 4),
}

CONNECTION_PROGRAM = "meshaccel_relay_connection"
LIMIT_PROGRAM = "meshaccel_relay_limit"
ACKNOWLEDGE_PROGRAM = "meshaccel_relay_acknowledge"
LOGIC_PROGRAM = "meshaccel_relay_logic"
STREAM_PROGRAM = "meshaccel_relay_stream"
PROGRAMS: tuple[str, ...] = (
    CONNECTION_PROGRAM,
    LIMIT_PROGRAM,
    ACKNOWLEDGE_PROGRAM,
    LOGIC_PROGRAM,
    STREAM_PROGRAM,
)
