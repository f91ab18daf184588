# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Every cause there is for a connection's way, and what an operator is told of it."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """enum sockops_status of bpf/include/meshaccel/sockops.h."""

    PLAIN = 0
    WAITING = 1
    PAIRED = 2
    ADOPTED = 3
    LEAVING = 4


class Reason(enum.IntEnum):
    """enum sockops_reason of bpf/include/meshaccel/sockops.h."""

    NONE = 0
    MODE = 1
    MULTIPATH = 2
    PORT = 3
    TABLE_FULL = 4
    DUPLICATE = 5
    OTHER = 6
    NO_PEER = 7
    STREAM = 8
    PEER_LEFT = 9
    RELEASED = 10
    DENIED = 11
    RELAY = 12
    NOT_ADOPTED = 13


class MessageReason(enum.IntEnum):
    """enum sockops_message_reason of bpf/include/meshaccel/sockops.h."""

    REDIRECTED = 0
    MODE = 1
    NO_PEER = 2
    ORDER = 3
    MEMORY = 4
    PEER_GONE = 5
    LEAVING = 6
    ADOPTION = 7
    REFUSED = 8


class Cause(str, enum.Enum):
    """Why a connection goes the way it goes, for scripts (``cause`` in JSON)."""

    REDIRECTED = "redirected"
    NO_MESSAGE = "no_message"
    OTHER_NODE = "other_node"
    NOT_OPTED_IN = "not_opted_in"
    PEER_CLOSED = "peer_closed"
    SEQUENCE_REWRITTEN = "sequence_rewritten"
    NODE_OFF = "node_off"
    CGROUP_OFF = "cgroup_off"
    DRAIN = "drain"
    OPENED_WHILE_OFF = "opened_while_off"
    OPENED_BEFORE = "opened_before"
    MULTIPATH = "multipath"
    PORT = "port"
    TABLE_FULL = "table_full"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    STREAM = "stream"
    RELEASED = "released"
    DENIED = "denied"
    RELAY = "relay"
    ADOPTION = "adoption"
    NOT_ADOPTED = "not_adopted"
    PEER_GONE = "peer_gone"
    RESUMES = "resumes"
    ORDER = "order"
    MEMORY = "memory"
    LEAVING = "leaving"


#: What is said of each cause; the decision fills in the names.
SENTENCES: dict[Cause, str] = {
    Cause.REDIRECTED: "from socket to socket",
    Cause.NO_MESSAGE: "paired, no message yet: the next one goes from socket to socket",
    Cause.OTHER_NODE: "its peer {remote} is on another node",
    Cause.NOT_OPTED_IN: "not opted in: {who}",
    Cause.PEER_CLOSED: "its peer has closed its side",
    Cause.SEQUENCE_REWRITTEN: (
        "both ends are on this node, but something between them rewrites sequence numbers "
        "(SYNPROXY, a NAT helper), so they cannot be paired"
    ),
    Cause.NODE_OFF: "sockops is off on this node, {holder}",
    Cause.CGROUP_OFF: "sockops is off for {cgroup}, {holder}",
    Cause.DRAIN: "sockops takes no new connections: {place} drains, {holder}",
    Cause.OPENED_WHILE_OFF: "opened while sockops was off or draining here; new connections are accelerated",
    Cause.OPENED_BEFORE: "opened before sockops was on for both its ends; {adoption}",
    Cause.MULTIPATH: "it is MPTCP",
    Cause.PORT: "neither end has a named port ({ports})",
    Cause.TABLE_FULL: "the table was full when it was opened: raise sockops_maximum_connections",
    Cause.DUPLICATE: "another live connection had the same handshake numbers when it was opened",
    Cause.REFUSED: "the kernel did not take its socket into the table",
    Cause.STREAM: "recognised as a stream of small writes, which TCP carries cheaper",
    Cause.RELEASED: "given back to TCP when sockops was switched off; new connections are accelerated",
    Cause.DENIED: "a denied network has its addresses (sockops_denied_networks, sockops_denied_nft_sets)",
    Cause.RELAY: "it is an end of a relay",
    Cause.ADOPTION: "adopted, but a thread still waits for bytes of TCP alone: from its next read on",
    Cause.NOT_ADOPTED: "not adopted: a thread has been waiting for bytes of TCP alone for too long",
    Cause.PEER_GONE: "the peer is closing or was given back to TCP",
    Cause.RESUMES: "the last message went by TCP; the next one goes from socket to socket",
    Cause.ORDER: "waits for order: {waiting} bytes that went by TCP are not read yet",
    Cause.MEMORY: "at the memory limit: the reader is behind by {waiting} bytes, the limit is {limit}",
    Cause.LEAVING: "on its way back to TCP",
}

#: The cause that a reason kept with a socket stands for; None: the peer's end knows more.
REASON_CAUSES: dict[Reason, Cause | None] = {
    Reason.NONE: None,
    Reason.MODE: Cause.OPENED_WHILE_OFF,
    Reason.MULTIPATH: Cause.MULTIPATH,
    Reason.PORT: Cause.PORT,
    Reason.TABLE_FULL: Cause.TABLE_FULL,
    Reason.DUPLICATE: Cause.DUPLICATE,
    Reason.OTHER: Cause.REFUSED,
    Reason.NO_PEER: None,
    Reason.STREAM: Cause.STREAM,
    Reason.PEER_LEFT: None,
    Reason.RELEASED: Cause.RELEASED,
    Reason.DENIED: Cause.DENIED,
    Reason.RELAY: Cause.RELAY,
    Reason.NOT_ADOPTED: Cause.NOT_ADOPTED,
}

#: The cause that the way of a socket's last message stands for.
MESSAGE_CAUSES: dict[MessageReason, Cause] = {
    MessageReason.REDIRECTED: Cause.REDIRECTED,
    MessageReason.MODE: Cause.RESUMES,
    MessageReason.NO_PEER: Cause.RESUMES,
    MessageReason.ORDER: Cause.ORDER,
    MessageReason.MEMORY: Cause.MEMORY,
    MessageReason.PEER_GONE: Cause.PEER_GONE,
    MessageReason.LEAVING: Cause.LEAVING,
    MessageReason.ADOPTION: Cause.ADOPTION,
    MessageReason.REFUSED: Cause.PEER_GONE,
}


class Use(str, enum.Enum):
    """What a program does with a socket that the kernel does not do for an accelerated one."""

    SPLICE = "splice"
    PERHAPS_SPLICE = "perhaps_splice"
    WAIT_ALL = "wait_all"
    LOW_WATER_MARK = "low_water_mark"
    CORK = "cork"
    ZERO_COPY = "zero_copy"
    URGENT = "urgent"
    KERNEL_TLS = "kernel_tls"


#: What the program does, and what it sees then and what to do: the words of docs/sockops.md, Limits.
USES: dict[Use, tuple[str, str]] = {
    Use.SPLICE: ("reads with splice()", "EAGAIN: leave it out"),
    Use.PERHAPS_SPLICE: ("has pipes open to itself; if it reads with splice()", "EAGAIN: leave it out"),
    Use.WAIT_ALL: (
        "reads with MSG_WAITALL",
        "short reads; after bytes went by TCP it may wait for more TCP bytes: leave it out",
    ),
    Use.LOW_WATER_MARK: (
        "sets SO_RCVLOWAT",
        "short reads; after bytes went by TCP it may wait for more TCP bytes: leave it out",
    ),
    Use.CORK: ("sets TCP_CORK", "no effect; MSG_MORE is fine"),
    Use.ZERO_COPY: ("sends with MSG_ZEROCOPY", "no completion for redirected messages: leave it out"),
    Use.URGENT: ("sends urgent data", "it arrives inline"),
    Use.KERNEL_TLS: ("uses kernel TLS (kTLS)", "untested: leave it out"),
}
