# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Decides why a connection goes its way. Pure: records in, explanation out."""

from __future__ import annotations

from collections.abc import Iterable

from ....model import Mode
from ..adoption.plan import reason_against
from ..inspection.sockets import SEQUENCE_NUMBERS, InspectedSocket, TrackedState
from .model import Connection, End, Explanation, Switches, Verdict
from .uses import incompatible_uses
from .words import MESSAGE_CAUSES, REASON_CAUSES, SENTENCES, Cause, MessageReason, Reason, Status

#: In these a message may be redirected, or is as soon as the conditions for it hold.
TRACKED = frozenset({Status.WAITING, Status.PAIRED})
#: Of causes that hold for one direction, what a reader should hear of first.
WITHOUT_FAULT = frozenset({Cause.REDIRECTED, Cause.NO_MESSAGE})
#: TCP_CLOSE_WAIT of include/net/tcp_states.h: the peer has sent its FIN, which counts as a byte received.
CLOSE_WAIT = 8


def explain(connection: Connection, switches: Switches) -> Explanation:
    """Explains one connection."""
    verdict = decide(connection, switches)
    return Explanation(
        connection=connection,
        redirected=verdict.cause in WITHOUT_FAULT,
        verdict=verdict,
        redirected_bytes=sum(each.redirected_bytes for each in states(connection)),
        tcp_bytes=bytes_by_tcp(connection),
        uses=tuple(use for end in connection.ends if end.policy for use in incompatible_uses(end)),
    )


def decide(connection: Connection, switches: Switches) -> Verdict:
    """Returns the first cause that holds, from what no switch can change to what passes by itself."""
    checks = (
        not_opted_in(connection),
        say(Cause.MULTIPATH) if any(end.socket.multipath for end in connection.ends) else None,
        without_peer(connection) if connection.far is None else None,
        switched_off(connection, switches),
        on_the_way(connection),
        kept_reason(connection),
        draining(connection, switches),
    )
    return next((verdict for verdict in checks if verdict), None) or opened_before(connection)


def say(cause: Cause, **names: object) -> Verdict:
    """Returns a verdict with its sentence."""
    return Verdict(cause, SENTENCES[cause].format(**names))


def not_opted_in(connection: Connection) -> Verdict | None:
    """One of the ends that are on this node is in no opted-in cgroup."""
    outside = [end for end in connection.ends if end.policy is None]
    if not outside:
        return None
    return say(Cause.NOT_OPTED_IN, who=", ".join(f"{names_of(end)} in {end.place}" for end in outside))


def names_of(end: End) -> str:
    """Returns who has an end open, for a sentence."""
    return " and ".join(map(str, end.programs)) or f"the end at {end.socket.local}"


def without_peer(connection: Connection) -> Verdict:
    """The other end is no socket of this node that carries data."""
    if connection.opposite_unpaired:
        return say(Cause.SEQUENCE_REWRITTEN)
    socket = connection.near.socket
    had_peer_here = socket.state is not None and socket.state.peer_cookie
    if had_peer_here or socket.tcp_state == CLOSE_WAIT:
        return say(Cause.PEER_CLOSED)
    return say(Cause.OTHER_NODE, remote=socket.remote)


def switched_off(connection: Connection, switches: Switches) -> Verdict | None:
    """The node is off, or an end's cgroup is."""
    if switches.mode is Mode.OFF:
        return say(Cause.NODE_OFF, holder=switches.holder())
    path = cgroup_in(Mode.OFF, connection)
    if path is None:
        return None
    return say(Cause.CGROUP_OFF, cgroup=f"cgroup {path}", holder=switches.holder(path))


def draining(connection: Connection, switches: Switches) -> Verdict | None:
    """Nothing new is taken, and this connection is not among what was taken before."""
    if switches.mode is Mode.DRAIN:
        return say(Cause.DRAIN, place="the node", holder=switches.holder())
    path = cgroup_in(Mode.DRAIN, connection)
    if path is None:
        return None
    return say(Cause.DRAIN, place=f"cgroup {path}", holder=switches.holder(path))


def cgroup_in(mode: Mode, connection: Connection) -> str | None:
    """Returns the opted-in cgroup of an end, by its path, that is in this mode."""
    policies = [end.policy for end in connection.ends if end.policy is not None]
    return next((policy.path for policy in policies if policy.mode is mode), None)


def on_the_way(connection: Connection) -> Verdict | None:
    """Both ends are in the table: how each direction's last message went, or what it waits for."""
    near, far = connection.near, connection.far
    if far is None or near.socket.state is None or far.socket.state is None:
        return None
    found = {Status(near.socket.state.status), Status(far.socket.state.status)}
    if Status.ADOPTED in found:
        return say(Cause.ADOPTION)
    if Status.LEAVING in found:
        return kept_reason(connection) or say(Cause.LEAVING)
    if not found <= TRACKED:
        return None
    ways = [(near, direction(near, near.socket.state, far)), (far, direction(far, far.socket.state, near))]
    faults = [(sender, way) for sender, way in ways if way.cause not in WITHOUT_FAULT]
    if faults:
        sentences = [f"from {sender.socket.local}: {way.sentence}" for sender, way in faults]
        return Verdict(faults[0][1].cause, "; ".join(sentences))
    # A direction that has carried something says more than one that has not.
    return next((way for _, way in ways if way.cause is Cause.REDIRECTED), ways[0][1])


def direction(sender: End, state: TrackedState, receiver: End) -> Verdict:
    """Returns the way of the messages from one end to the other."""
    cause = MESSAGE_CAUSES[MessageReason(state.last_message)]
    if cause is Cause.REDIRECTED:
        return say(Cause.REDIRECTED if state.redirected_bytes else Cause.NO_MESSAGE)
    if cause is Cause.MEMORY and receiver.policy is not None and receiver.socket.receive_memory > 0:
        limit = receiver.policy.receive_memory_limit
        return say(Cause.MEMORY, waiting=receiver.socket.receive_memory, limit=limit)
    if cause in (Cause.PEER_GONE, Cause.LEAVING, Cause.ADOPTION):
        return say(cause)
    waiting = (sender.socket.write_sequence - receiver.socket.copied_sequence) % SEQUENCE_NUMBERS
    return say(Cause.ORDER, waiting=waiting) if waiting else say(Cause.RESUMES)


def kept_reason(connection: Connection) -> Verdict | None:
    """One of the ends remembers why it is, or will be, on TCP alone."""
    for state in states(connection):
        cause = REASON_CAUSES[Reason(state.reason)]
        if cause is not None:
            return say(cause, ports=named_ports(connection.ends))
    return None


def opened_before(connection: Connection) -> Verdict:
    """Nothing else is against it: it is older than its ends' being opted in."""
    obstacle = obstacle_to_adoption(connection)
    adoption = f"it cannot be adopted: {obstacle}" if obstacle else "sockops_adopt_existing takes it over"
    return say(Cause.OPENED_BEFORE, adoption=adoption)


def obstacle_to_adoption(connection: Connection) -> str | None:
    """Returns why a connection that sockops left on TCP would be left there again; None when it would not."""
    known = {state.status for state in states(connection)}
    if connection.far is None or known - {Status.PLAIN}:
        return None
    attachments = {end.socket.cgroup_id: end.policy for end in connection.ends if end.policy is not None}
    return reason_against(connection.near.socket, connection.far.socket, attachments)


def named_ports(ends: Iterable[End]) -> str:
    """Returns the ports that the ends' cgroups name, for a sentence."""
    lists = [
        f"{end.place}: {', '.join(map(str, end.policy.ports)) or 'all'}"
        for end in ends
        if end.policy is not None
    ]
    return "; ".join(dict.fromkeys(lists))


def states(connection: Connection) -> list[TrackedState]:
    """Returns what sockops remembers of the ends, of those it knows."""
    return [end.socket.state for end in connection.ends if end.socket.state is not None]


def bytes_by_tcp(connection: Connection) -> int:
    """Returns the bytes of both ways that TCP carried; what was sent twice counts twice."""
    if connection.far is not None:
        return connection.near.socket.bytes_sent + connection.far.socket.bytes_sent
    return connection.near.socket.bytes_sent + received_bytes(connection.near.socket)


def received_bytes(socket: InspectedSocket) -> int:
    """Returns the bytes of data received; the kernel counts a FIN as one."""
    return socket.bytes_received - (socket.tcp_state == CLOSE_WAIT)
