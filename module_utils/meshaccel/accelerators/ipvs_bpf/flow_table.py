# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs' table of flows, open: one map for each version of IP."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
from collections.abc import Iterable, Iterator
from typing import Union

from ...bpf import libbpf, maps
from ...bpf.pins import PinPlaces
from . import layout
from .layout import FlowKind
from .sessions import Flow, Key

IPV4_BYTES = 4
MAPPED_PREFIX = bytes(10) + b"\xff\xff"

MapKey = Union[layout.FlowKeyIpv4, layout.FlowKey]
#: By the version of IP: the keys differ, for their length is half of what a lookup costs.
IPV4_MAP = "flows_ipv4"
IPV6_MAP = "flows_ipv6"


class FlowTable:
    """Both maps; opened() gives one. What it does raises BpfError."""

    def __init__(
        self, ipv4: maps.Map[layout.FlowKeyIpv4, layout.Flow], ipv6: maps.Map[layout.FlowKey, layout.Flow]
    ) -> None:
        """Works on open maps, whose owner closes them."""
        self._ipv4 = ipv4
        self._ipv6 = ipv6

    def read(self) -> dict[Key, Flow]:
        """Returns all that is there."""
        entries: list[tuple[MapKey, layout.Flow]] = [*self._ipv4.items(), *self._ipv6.items()]
        return {unpacked_key(key): unpacked_flow(flow) for key, flow in entries}

    def enter(self, key: Key, kind: FlowKind) -> bool:
        """Enters a flow that is not there yet; returns False when the table is full."""
        flow = layout.Flow(kind=kind)
        try:
            if is_ipv4(key):
                self._ipv4.add(packed_ipv4(key), flow)
            else:
                self._ipv6.add(packed_key(key), flow)
        except libbpf.BpfError as error:
            if error.errno not in (errno.E2BIG, errno.ENOMEM):
                raise
            return False
        return True

    def delete(self, keys: Iterable[Key]) -> None:
        """Deletes flows; what is not there is fine."""
        for key in keys:
            if is_ipv4(key):
                self._ipv4.delete(packed_ipv4(key))
            else:
                self._ipv6.delete(packed_key(key))


@contextlib.contextmanager
def opened(pins: PinPlaces) -> Iterator[FlowTable]:
    """Opens the pinned table; raises BpfError (ENOENT when there is no pin)."""
    with maps.Map.pinned(pins.map(IPV4_MAP), layout.FlowKeyIpv4, layout.Flow) as ipv4:
        with maps.Map.pinned(pins.map(IPV6_MAP), layout.FlowKey, layout.Flow) as ipv6:
            yield FlowTable(ipv4, ipv6)


def read(pins: PinPlaces) -> dict[Key, Flow]:
    """Reads the pinned table; raises BpfError."""
    with opened(pins) as table:
        return table.read()


def is_ipv4(key: Key) -> bool:
    """True when the programs look a flow up as one of IPv4."""
    return key.source.startswith(MAPPED_PREFIX) and key.destination.startswith(MAPPED_PREFIX)


def unpacked_key(key: MapKey) -> Key:
    """Returns a key of either map."""
    mapped = isinstance(key, layout.FlowKeyIpv4)
    return Key(
        MAPPED_PREFIX + bytes(key.source) if mapped else bytes(key.source),
        MAPPED_PREFIX + bytes(key.destination) if mapped else bytes(key.destination),
        socket.ntohs(key.source_port),
        socket.ntohs(key.destination_port),
        key.protocol,
        key.point,
    )


def packed_key(key: Key) -> layout.FlowKey:
    """Returns a key as the map of IPv6 has it."""
    return layout.FlowKey(
        source=layout.Address.from_buffer_copy(key.source),
        destination=layout.Address.from_buffer_copy(key.destination),
        source_port=socket.htons(key.source_port),
        destination_port=socket.htons(key.destination_port),
        protocol=key.protocol,
        point=key.point,
    )


def packed_ipv4(key: Key) -> layout.FlowKeyIpv4:
    """Returns a key as the map of IPv4 has it."""
    return layout.FlowKeyIpv4(
        source=(ctypes.c_uint8 * IPV4_BYTES)(*key.source[-IPV4_BYTES:]),
        destination=(ctypes.c_uint8 * IPV4_BYTES)(*key.destination[-IPV4_BYTES:]),
        source_port=socket.htons(key.source_port),
        destination_port=socket.htons(key.destination_port),
        protocol=key.protocol,
        point=key.point,
    )


def unpacked_flow(flow: layout.Flow) -> Flow:
    """Returns an entry of either map."""
    return Flow(
        flow.last_seen,
        bytes(flow.new_source),
        bytes(flow.new_destination),
        socket.ntohs(flow.new_source_port),
        socket.ntohs(flow.new_destination_port),
        flow.kind,
        flow.flags,
    )
