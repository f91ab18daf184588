"""Which live connections are adopted, and what is said of the others."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.sockops.adoption.plan import choose
from meshaccel.accelerators.sockops.adoption.run import Report
from meshaccel.accelerators.sockops.inspection.sockets import Address, InspectedSocket, TrackedState
from meshaccel.accelerators.sockops.inspection.sockets import Handshake as InspectedHandshake
from meshaccel.accelerators.sockops.membership import innermost
from meshaccel.accelerators.sockops.observe import Attachment
from meshaccel.model import Mode
from meshaccel.ports import PortRange

CLIENT_CGROUP, SERVER_CGROUP = 10, 20
ESTABLISHED, CLOSE_WAIT = 1, 8
HOST = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
CLIENT_PORT, SERVER_PORT = 40000, 8080


def attachment(policy: int, **changes: Any) -> Attachment:
    """Return an opted-in cgroup."""
    plain = Attachment(
        policy=policy,
        cgroup_id=policy * 10,
        path=f"pods/{policy}",
        mode=Mode.ON,
        ports=(),
        receive_memory_limit=4194304,
        attached=True,
    )
    return replace(plain, **changes)


ATTACHMENTS = {CLIENT_CGROUP: attachment(1), SERVER_CGROUP: attachment(2)}


def inspected(cookie: int, *, client: bool, first: int = 1000, second: int = 2000) -> InspectedSocket:
    """Return an end of a connection whose client sends from `first` and whose server from `second`."""
    local, remote = (CLIENT_PORT, SERVER_PORT) if client else (SERVER_PORT, CLIENT_PORT)
    return InspectedSocket(
        cookie=cookie,
        socket=cookie << 16,
        cgroup_id=CLIENT_CGROUP if client else SERVER_CGROUP,
        inode=cookie,
        network_namespace=1,
        family=2,
        tcp_state=ESTABLISHED,
        local=Address(HOST, local),
        remote=Address(HOST, remote),
        bytes_received=0,
        bytes_sent=0,
        receive_sequence=second if client else first,
        send_base_sequence=first - 1 if client else second,
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


def tracked(status: int) -> TrackedState:
    """Return what sockops remembers of a socket of this status."""
    return TrackedState(status, 0, 0, 1, 2, 0, InspectedHandshake(0, 0), 0, 0)


CLIENT, SERVER = inspected(1, client=True), inspected(2, client=False)


def test_both_ends_are_told_of_each_other() -> None:
    chosen = choose([SERVER, CLIENT], ATTACHMENTS)
    ((client, server),) = chosen.connections
    assert (client.cookie, client.policy, client.address) == (1, 1, CLIENT.socket)
    assert (server.cookie, server.policy, server.address) == (2, 2, SERVER.socket)
    assert client.handshake == InspectedHandshake(2000, 1000)
    assert server.handshake == client.handshake.swapped
    assert chosen.left == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": tracked(2)}, "accelerated already"),
        ({"multipath": True}, "it is MPTCP"),
        ({"upper_layer_protocol": "tls"}, "it has an upper layer protocol such as kTLS"),
        ({"zero_copy": True}, "it uses MSG_ZEROCOPY"),
        ({"cork": True}, "it uses TCP_CORK"),
        ({"receive_low_water_mark": 100}, "it uses SO_RCVLOWAT"),
        ({"urgent_data": True}, "it has urgent data"),
        ({"repair": True}, "it is in TCP_REPAIR"),
        ({"in_socket_map": True}, "another socket map has it"),
    ],
)
@pytest.mark.parametrize("which", ["client", "server"])
def test_a_connection_with_an_end_that_cannot_be_adopted_is_left(
    changes: dict[str, Any], reason: str, which: str
) -> None:
    client, server = CLIENT, SERVER
    if which == "client":
        client = replace(client, **changes)
    else:
        server = replace(server, **changes)
    chosen = choose([client, server], ATTACHMENTS)
    assert chosen.connections == ()
    assert chosen.left == {reason: 2}


def test_a_socket_that_was_released_is_adopted_again() -> None:
    released = replace(CLIENT, state=tracked(0))
    assert len(choose([released, SERVER], ATTACHMENTS).connections) == 1


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.DRAIN])
def test_a_cgroup_that_is_not_on_keeps_its_connections(mode: Mode) -> None:
    attachments = {**ATTACHMENTS, SERVER_CGROUP: attachment(2, mode=mode)}
    assert choose([CLIENT, SERVER], attachments).left == {"its cgroup is not switched on": 2}


@pytest.mark.parametrize(("port", "adopted"), [(SERVER_PORT, 1), (CLIENT_PORT, 1), (SERVER_PORT + 1, 0)])
def test_either_end_may_name_the_port(port: int, adopted: int) -> None:
    named = {
        identifier: replace(entry, ports=(PortRange(port, port),))
        for identifier, entry in ATTACHMENTS.items()
    }
    chosen = choose([CLIENT, SERVER], named)
    assert len(chosen.connections) == adopted
    assert chosen.left == ({} if adopted else {"neither end has a named port": 2})


def test_an_end_alone_has_its_peer_elsewhere() -> None:
    assert choose([CLIENT], ATTACHMENTS).left == {"the peer is on another node or not opted in": 1}
    assert choose([CLIENT, SERVER], {CLIENT_CGROUP: attachment(1)}).left == {
        "the peer is on another node or not opted in": 1
    }


def test_an_end_that_said_its_last_word_is_not_looked_at() -> None:
    assert choose([replace(CLIENT, tcp_state=CLOSE_WAIT)], ATTACHMENTS).left == {}


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), unique=True, max_size=20))
def test_no_socket_is_in_two_connections_and_none_is_forgotten(handshakes: list[tuple[int, int]]) -> None:
    sockets = [
        each
        for number, (first, second) in enumerate(handshakes)
        for each in (
            inspected(2 * number + 1, client=True, first=first, second=second),
            inspected(2 * number + 2, client=False, first=first, second=second),
        )
    ]
    chosen = choose(sockets, ATTACHMENTS)
    cookies = [end.cookie for connection in chosen.connections for end in connection]
    assert len(cookies) == len(set(cookies))
    assert len(cookies) + sum(chosen.left.values()) == len(sockets)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b", 2), ("a/b/c", 2), ("a", 1), ("a/x/y", 1), ("z", None), (os.curdir, None)],
)
def test_the_innermost_cgroup_decides(path: str, expected: int | None) -> None:
    found = innermost(path, {"a": attachment(1), "a/b": attachment(2)})
    assert (found.policy if found else None) == expected


def test_the_root_cgroup_has_everything_below_it() -> None:
    found = innermost("a/b", {os.curdir: attachment(1)})
    assert found is not None
    assert found.policy == 1


def test_a_report_says_the_share_and_the_reasons() -> None:
    assert str(Report(3, 4, {})) == "adopted 3 of 4 live connections within this node"
    assert str(Report(0, 0, {"it is MPTCP": 2})) == (
        "adopted 0 of 0 live connections within this node; left on TCP: 2 sockets: it is MPTCP"
    )
