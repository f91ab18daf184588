# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which live connections are to be adopted, and why the others are not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ....model import Mode
from ..inspection.sockets import Handshake, InspectedSocket, pairs
from ..observe import Attachment

#: TCP_ESTABLISHED of include/net/tcp_states.h: in every other state an end has said its last word.
ESTABLISHED = 1
#: SOCKOPS_STATUS_PLAIN: by TCP alone.
PLAIN = 0


@dataclass(frozen=True)
class End:
    """One socket to adopt. ``address`` is that of the kernel's structure."""

    cookie: int
    address: int
    handshake: Handshake
    policy: int


@dataclass(frozen=True)
class Candidates:
    """The connections to adopt, and how many sockets are left on TCP, by reason."""

    connections: tuple[tuple[End, End], ...]
    left: Mapping[str, int]


def choose(
    sockets: Iterable[InspectedSocket],
    attachments: Mapping[int, Attachment],
) -> Candidates:
    """Chooses what to adopt of the sockets of a node.

    ``attachments`` gives, by cgroup id, the opted-in cgroup that a socket's
    cgroup is or lies in; a cgroup that is not there is not opted in.
    """
    left: Counter[str] = Counter()
    connections: list[tuple[End, End]] = []
    opted_in = [each for each in sockets if each.cgroup_id in attachments and each.tcp_state == ESTABLISHED]
    joined = pairs(opted_in)
    for pair in joined:
        reason = reason_against(pair.client, pair.server, attachments)
        if reason:
            left[reason] += 2
            continue
        client = end_of(pair.client, pair.client_handshake, attachments)
        connections.append((client, end_of(pair.server, pair.server_handshake, attachments)))
    alone = len(opted_in) - 2 * len(joined)
    if alone:
        left["the peer is on another node or not opted in"] = alone
    return Candidates(tuple(connections), dict(left))


def reason_against(
    one: InspectedSocket, other: InspectedSocket, attachments: Mapping[int, Attachment]
) -> str | None:
    """Returns why a connection is not adopted; None when it can be."""
    checks: tuple[tuple[str, Callable[[InspectedSocket], bool]], ...] = (
        ("accelerated already", lambda end: end.state is not None and end.state.status != PLAIN),
        ("its cgroup is not switched on", lambda end: attachments[end.cgroup_id].mode is not Mode.ON),
        ("it is MPTCP", lambda end: end.multipath),
        ("it has an upper layer protocol such as kTLS", lambda end: bool(end.upper_layer_protocol)),
        ("it uses MSG_ZEROCOPY", lambda end: end.zero_copy),
        ("it uses TCP_CORK", lambda end: end.cork),
        ("it uses SO_RCVLOWAT", lambda end: end.receive_low_water_mark > 1),
        ("it has urgent data", lambda end: end.urgent_data),
        ("it is in TCP_REPAIR", lambda end: end.repair),
        ("another socket map has it", lambda end: end.in_socket_map),
    )
    for reason, applies in checks:
        if applies(one) or applies(other):
            return reason
    if not (names_port(one, attachments) or names_port(other, attachments)):
        return "neither end has a named port"
    return None


def names_port(end: InspectedSocket, attachments: Mapping[int, Attachment]) -> bool:
    """True when one of the end's ports, as it sees them, is named by its cgroup."""
    ports = attachments[end.cgroup_id].ports
    return not ports or any(
        each.first <= port <= each.last for each in ports for port in (end.local.port, end.remote.port)
    )


def end_of(found: InspectedSocket, handshake: Handshake, attachments: Mapping[int, Attachment]) -> End:
    """Returns what the kernel's side needs to know of a socket."""
    return End(found.cookie, found.socket, handshake, attachments[found.cgroup_id].policy)
