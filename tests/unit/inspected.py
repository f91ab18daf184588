"""Sockets and connections as the inspection would see them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshaccel.accelerators.sockops.explanation.model import Connection, End, Program
from meshaccel.accelerators.sockops.explanation.words import MessageReason, Reason, Status
from meshaccel.accelerators.sockops.inspection.sockets import (
    IPV4_MAPPED_PREFIX,
    Address,
    Handshake,
    InspectedSocket,
    TrackedState,
)
from meshaccel.accelerators.sockops.observe import Attachment
from meshaccel.model import Mode

ESTABLISHED = 1
CLIENT = Address(IPV4_MAPPED_PREFIX + bytes([10, 0, 0, 1]), 40000)
SERVER = Address(IPV4_MAPPED_PREFIX + bytes([10, 0, 0, 2]), 80)
CLIENT_FIRST, SERVER_FIRST = 1000, 2000
LIMIT = 65536


def tracked(
    status: Status,
    reason: Reason = Reason.NONE,
    last_message: MessageReason = MessageReason.REDIRECTED,
    *,
    redirected_bytes: int = 0,
    peer_cookie: int = 0,
) -> TrackedState:
    """Return what sockops remembers of a socket."""
    return TrackedState(
        status=status,
        reason=reason,
        last_message=last_message,
        policy=1,
        peer_policy=1,
        peer_cookie=peer_cookie,
        handshake=Handshake(0, 0),
        redirected_bytes=redirected_bytes,
        tcp_bytes=0,
    )


def inspected(local: Address, remote: Address, **changes: Any) -> InspectedSocket:
    """Return an idle socket; `changes` replace parts of it."""
    idle = InspectedSocket(
        cookie=local.port,
        socket=0,
        cgroup_id=1,
        inode=local.port,
        network_namespace=1,
        family=2,
        tcp_state=ESTABLISHED,
        local=local,
        remote=remote,
        bytes_received=0,
        bytes_sent=0,
        receive_sequence=0,
        send_base_sequence=0,
        next_receive_sequence=0,
        copied_sequence=0,
        write_sequence=0,
        unacknowledged_sequence=0,
        receive_memory=0,
        receive_low_water_mark=1,
        upper_layer_protocol="",
        multipath=False,
        cork=False,
        no_delay=False,
        zero_copy=False,
        urgent_data=False,
        repair=False,
        in_socket_map=False,
        state=None,
    )
    return replace(idle, **changes)


def client_socket(**changes: Any) -> InspectedSocket:
    """Return the end that connected, of which the kernel has counted the SYN as acknowledged."""
    sequences = {"receive_sequence": SERVER_FIRST, "send_base_sequence": CLIENT_FIRST - 1}
    return inspected(CLIENT, SERVER, **{**sequences, **changes})


def server_socket(**changes: Any) -> InspectedSocket:
    """Return the end that was accepted."""
    sequences = {"receive_sequence": CLIENT_FIRST, "send_base_sequence": SERVER_FIRST}
    return inspected(SERVER, CLIENT, **{**sequences, **changes})


def attachment(path: str, *, mode: Mode = Mode.ON) -> Attachment:
    """Return an opted-in cgroup, every port."""
    return Attachment(
        policy=1,
        cgroup_id=1,
        path=path,
        mode=mode,
        ports=(),
        receive_memory_limit=LIMIT,
        attached=True,
    )


def end(socket: InspectedSocket, name: str, *, mode: Mode = Mode.ON, opted_in: bool = True) -> End:
    """Return an end in the cgroup and of the program of this name."""
    policy = attachment(name, mode=mode) if opted_in else None
    return End(socket, name, policy, (Program(socket.local.port, name),))


def connection(client: TrackedState | None, server: TrackedState | None, **changes: Any) -> Connection:
    """Return a connection of which sockops remembers this; `changes` are the client socket's."""
    return Connection(
        end(client_socket(state=client, **changes), "envoy"), end(server_socket(state=server), "app")
    )
