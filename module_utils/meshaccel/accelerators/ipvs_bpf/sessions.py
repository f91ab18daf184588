# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The flows' table read as sessions: what is alive, what has aged, which ports are in use. Pure.

Says of a session what bpf/ipvs_bpf/sessions.h says, for status, for a drain, and
for kernels without bpf_timer, where the follow daemon ages.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...ipvs.model import AddressKey
from . import layout
from .layout import FlowKind, IpAddress, Point
from .state import Settings, Source

NANOSECONDS = 1_000_000_000
#: While draining, a UDP session that was quiet for so long is over (QUIET_DATAGRAMS_SECONDS).
QUIET_DATAGRAMS_SECONDS = 60
FINISHED = layout.CLIENT_FINISHED | layout.BACKEND_FINISHED


class Key(NamedTuple):
    """A flow: addresses in 16 bytes, ports in host byte order."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    protocol: int
    point: int


class Flow(NamedTuple):
    """What is known of it; last_seen is nanoseconds of CLOCK_MONOTONIC."""

    last_seen: int
    new_source: bytes
    new_destination: bytes
    new_source_port: int
    new_destination_port: int
    kind: int
    flags: int


Table = Mapping[Key, Flow]


@dataclass(frozen=True)
class Session:
    """A session by its request; ``flags`` are those of both directions, ``last_seen`` the later one."""

    key: Key
    request: Flow
    flags: int
    last_seen: int

    @property
    def service(self) -> AddressKey:
        """The service that it is to."""
        protocol = layout.PROTOCOLS.get(self.key.protocol, str(self.key.protocol))
        return AddressKey(protocol, str(address(self.key.destination)), self.key.destination_port)

    @property
    def backend(self) -> tuple[str, int] | None:
        """The real server, once IPVS has chosen."""
        if not self.request.new_destination_port:
            return None
        return str(address(self.request.new_destination)), self.request.new_destination_port

    @property
    def masqueraded(self) -> bool:
        """True when the client's address is replaced: it ends with an abrupt off."""
        return bool(self.request.flags & layout.MASQUERADED)

    @property
    def closed(self) -> bool:
        """True when it is only kept so that late packets find it."""
        return is_closed(self.flags)

    def alive(self, now: int) -> bool:
        """True when a drain has to wait for it; ``now`` is CLOCK_MONOTONIC in nanoseconds."""
        if self.key.protocol == socket.IPPROTO_UDP:
            return now - self.last_seen <= QUIET_DATAGRAMS_SECONDS * NANOSECONDS
        return not self.closed


def sessions(table: Table) -> Iterator[Session]:
    """Yields the sessions there are."""
    for key, flow in table.items():
        if flow.kind == FlowKind.REQUEST:
            reply = reply_of(key, flow, table)
            flags = flow.flags | (reply.flags if reply else 0)
            yield Session(key, flow, flags, max(flow.last_seen, reply.last_seen if reply else 0))


def reply_of(key: Key, flow: Flow, table: Table) -> Flow | None:
    """Returns the reply of a request or of a translation, while it is its own."""
    translated = flow.kind == FlowKind.TRANSLATION
    backend = key.destination if translated else flow.new_destination
    port = key.destination_port if translated else flow.new_destination_port
    where = Key(backend, flow.new_source, port, flow.new_source_port, key.protocol, Point.INGRESS)
    reply = table.get(where)
    if reply is None or reply.kind != FlowKind.REPLY:
        return None
    own = (reply.new_destination, reply.new_destination_port) == (key.source, key.source_port)
    return reply if own else None


def is_closed(flags: int) -> bool:
    """True when both ends have finished, or one has reset."""
    return bool(flags & layout.RESET) or flags & FINISHED == FINISHED


def idle_seconds(settings: Settings, protocol: int, flags: int) -> int:
    """Returns for how long a quiet flow is kept, by what was seen of it."""
    if protocol == socket.IPPROTO_UDP:
        return settings.udp_seconds
    if is_closed(flags):
        return settings.tcp_closed_seconds
    if flags & FINISHED or not flags & layout.LINKED:
        return settings.tcp_closing_seconds
    return settings.tcp_seconds


def aged(table: Table, settings: Settings, now: int) -> list[Key]:
    """Returns the flows that are over, each session's together. Reserved ones do not age.

    ``now`` is CLOCK_MONOTONIC in nanoseconds.
    """
    over: list[Key] = []
    for key, flow in table.items():
        if flow.kind in (FlowKind.REPLY, FlowKind.RESERVED):
            continue
        reply = reply_of(key, flow, table) if flow.kind != FlowKind.LEGACY else None
        flags = flow.flags | (reply.flags if reply else 0)
        seen = max(flow.last_seen, reply.last_seen if reply else 0)
        legacy = flow.kind == FlowKind.LEGACY
        limit = settings.legacy_seconds if legacy else idle_seconds(settings, key.protocol, flags)
        if seen + limit * NANOSECONDS <= now:
            over += [key, *flows_of(key, flow, table)]
    return over


def flows_of(key: Key, flow: Flow, table: Table) -> Iterator[Key]:
    """Yields the translation and the reply of a request, or the reply of a translation."""
    if flow.kind == FlowKind.REQUEST and flow.new_destination_port:
        translation = Key(
            key.source,
            flow.new_destination,
            key.source_port,
            flow.new_destination_port,
            key.protocol,
            Point.EGRESS,
        )
        found = table.get(translation)
        if found is not None:
            yield translation
            yield from flows_of(translation, found, table)
    elif flow.kind == FlowKind.TRANSLATION and reply_of(key, flow, table):
        yield Key(
            key.destination,
            flow.new_source,
            key.destination_port,
            flow.new_source_port,
            key.protocol,
            Point.INGRESS,
        )


def ports_in_use(table: Table, sources: Iterable[Source]) -> dict[str, int]:
    """Returns how many source ports are taken of each address that replaces clients'."""
    own = {packed(wanted) for source in sources for wanted in (source.ipv4, source.ipv6) if wanted}
    ports = {
        (key.destination, key.destination_port, key.protocol)
        for key, flow in table.items()
        if flow.kind in (FlowKind.REPLY, FlowKind.RESERVED) and key.destination in own
    }
    counted = Counter(destination for destination, _, _ in ports)
    return {str(address(wanted)): counted[wanted] for wanted in sorted(own)}


# ---- between the kernel's words and ours ----


def packed(given: IpAddress) -> bytes:
    """Returns an address in the 16 bytes that the programs have."""
    return bytes(layout.packed(given))


def address(given: bytes) -> IpAddress | None:
    """Returns what packed() was given."""
    return layout.unpacked(layout.Address.from_buffer_copy(given))


def monotonic() -> int:
    """Returns CLOCK_MONOTONIC in nanoseconds, as the programs read it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
