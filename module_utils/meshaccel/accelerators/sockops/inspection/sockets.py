# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""TCP sockets as the inspection saw them, and which two are the ends of one connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SEQUENCE_NUMBERS = 1 << 32
IPV4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, order=True)
class Address:
    """One end's address: ``host`` is IPv6 or v4-mapped IPv4 in network order."""

    host: bytes
    port: int

    def __str__(self) -> str:
        # Costs a run that only switches nothing.
        import socket

        if self.host.startswith(IPV4_MAPPED_PREFIX):
            return f"{socket.inet_ntop(socket.AF_INET, self.host[len(IPV4_MAPPED_PREFIX) :])}:{self.port}"
        return f"[{socket.inet_ntop(socket.AF_INET6, self.host)}]:{self.port}"


@dataclass(frozen=True)
class Handshake:
    """The sequence numbers of the first byte each way, as connection.h keys its table by."""

    receive_sequence: int
    send_sequence: int

    @property
    def swapped(self) -> Handshake:
        """The same handshake as the other end sees it."""
        return Handshake(self.send_sequence, self.receive_sequence)


@dataclass(frozen=True)
class TrackedState:
    """What sockops remembers of a socket (struct sockops_socket_state)."""

    status: int
    reason: int
    last_message: int
    policy: int
    peer_policy: int
    peer_cookie: int
    handshake: Handshake
    redirected_bytes: int
    tcp_bytes: int


@dataclass(frozen=True)
class InspectedSocket:
    """A TCP socket that carries data; all of it was read under the socket's lock."""

    cookie: int
    #: The kernel's address of the socket.
    socket: int
    #: The cgroup2 the socket was made in.
    cgroup_id: int
    #: Of the socket's file; 0 when no program has it open, any more or yet.
    inode: int
    #: The inode number of its network namespace.
    network_namespace: int
    family: int
    #: enum of include/net/tcp_states.h.
    tcp_state: int
    local: Address
    remote: Address
    bytes_received: int
    bytes_sent: int
    #: Of the first byte received; exact.
    receive_sequence: int
    #: Of the first byte sent, or, at the end that connected, one less.
    send_base_sequence: int
    next_receive_sequence: int
    copied_sequence: int
    write_sequence: int
    unacknowledged_sequence: int
    #: Bytes of kernel memory that its unread data takes.
    receive_memory: int
    receive_low_water_mark: int
    upper_layer_protocol: str
    multipath: bool
    cork: bool
    no_delay: bool
    zero_copy: bool
    urgent_data: bool
    repair: bool
    #: In some sockmap or sockhash, whoever's.
    in_socket_map: bool
    state: TrackedState | None

    @property
    def unread_bytes(self) -> int:
        """How many bytes came by TCP and were not read."""
        return (self.next_receive_sequence - self.copied_sequence) % SEQUENCE_NUMBERS

    @property
    def unacknowledged_bytes(self) -> int:
        """How many bytes were written and have not been acknowledged."""
        return (self.write_sequence - self.unacknowledged_sequence) % SEQUENCE_NUMBERS

    @property
    def handshake_if_client(self) -> Handshake:
        """Its handshake if this end connected: the kernel counted its SYN as a byte acknowledged."""
        return Handshake(self.receive_sequence, (self.send_base_sequence + 1) % SEQUENCE_NUMBERS)

    @property
    def handshake_if_server(self) -> Handshake:
        """Its handshake if this end was accepted."""
        return Handshake(self.receive_sequence, self.send_base_sequence)


@dataclass(frozen=True)
class Pair:
    """The two ends of a connection within this node. The client is the end that connected."""

    client: InspectedSocket
    server: InspectedSocket

    @property
    def client_handshake(self) -> Handshake:
        """The handshake as the client's end sees it; exact, and the server's is this one swapped."""
        return self.client.handshake_if_client

    @property
    def server_handshake(self) -> Handshake:
        """The handshake as the server's end sees it."""
        return self.server.handshake_if_server


def pairs(sockets: Iterable[InspectedSocket]) -> list[Pair]:
    """Returns the connections of which both ends are among these sockets, in whatever namespaces.

    The end that connected and the one that accepted differ by one in what their
    counters lead back to, so a match says which is which. A socket that fits
    more than one other, by accident or because a program chose its numbers, is
    paired with none.
    """
    every = list(sockets)
    servers = _by_handshake((one.handshake_if_server, one) for one in every)
    matches = [
        Pair(client, server)
        for client in every
        for server in servers.get(client.handshake_if_client.swapped, ())
        if client is not server
    ]
    fits = Counter(end.cookie for pair in matches for end in (pair.client, pair.server))
    return [pair for pair in matches if fits[pair.client.cookie] == 1 == fits[pair.server.cookie]]


def _by_handshake(
    keyed: Iterable[tuple[Handshake, InspectedSocket]],
) -> dict[Handshake, list[InspectedSocket]]:
    found: dict[Handshake, list[InspectedSocket]] = {}
    for handshake, one in keyed:
        found.setdefault(handshake, []).append(one)
    return found
