"""The short cut to a peer: right, wrong or missing, every message reaches its own peer and no other."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.observe import Places
from meshaccel.bpf.maps import Map
from meshaccel.capabilities import probe
from meshaccel.model import Answer, Mode
from tests.kernel.installations import installation, present
from tests.kernel.observation import (
    assert_redirected,
    assert_tables_empty,
    socket_slots,
    wait_until,
)
from tests.kernel.topologies import Cgroups, Topology, one_pod
from tests.support.accelerator import accelerated
from tests.support.connections import Connection, connected, open_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

MAXIMUM = 64
SO_COOKIE = 57
MESSAGE = b"for its own peer"
CASTS = ("sk_msg_rdonly_cast", "sk_msg_cast_to_kern_ctx")


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Sockops]:
    """sockops with few slots."""
    with accelerated(cgroups.paths, maximum_connections=MAXIMUM) as sockops:
        yield sockops


@pytest.fixture
def connection(node: Sockops, topology: Topology) -> Iterator[Connection]:
    """A connection whose ends know each other's slots."""
    with connected(topology.client, topology.server, topology.address4) as made:
        assert_redirected(node, topology, made)
        yield made


@pytest.fixture
def other(node: Sockops, topology: Topology) -> Iterator[Connection]:
    """Another such."""
    with connected(topology.client, topology.server, topology.address4, seed=2) as made:
        assert_redirected(node, topology, made)
        yield made


def cookie(read: socket.socket) -> int:
    """Return the kernel's number of a socket, as socket maps tell it."""
    return int.from_bytes(read.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def cookies(connections: list[Connection]) -> set[int]:
    """Return those of all ends."""
    return {cookie(end.socket) for made in connections for end in (made.client, made.server)}


def slot(node: Sockops, owner: socket.socket) -> int:
    """Return a socket's slot."""
    return next(index for index, found in socket_slots(node).items() if found == cookie(owner))


def set_peer_slot(node: Sockops, owner: socket.socket, index: int | None) -> None:
    """Have a socket take this for its peer's slot, or know none."""
    path = Places.of(node.paths).map("socket_states")
    with Map.pinned(path, ctypes.c_int, layout.SocketState) as states:
        key = ctypes.c_int(owner.fileno())
        state = states.read(key)
        assert state is not None
        assert state.peer_slot
        state.peer_slot = 0 if index is None else index + 1
        states.write(key, state)


def take_out_of_hash(node: Sockops, owner: socket.socket) -> None:
    """Take a socket out of the hash, as when it is closed."""
    with Map.pinned(Places.of(node.paths).map("sockets"), ctypes.c_uint64, ctypes.c_uint64) as sockets:
        sockets.delete(ctypes.c_uint64(cookie(owner)))


def slots_are_used() -> bool:
    """Whether this kernel lets a program see which socket it chose."""
    return all(capability.answer is Answer.YES for capability in probe(CASTS).values())


def take_slot(node: Sockops, index: int) -> None:
    """Take away a slot from whoever has it."""
    path = Places.of(node.paths).map("socket_slots")
    with Map.pinned(path, ctypes.c_uint32, ctypes.c_uint64) as taken:
        taken.delete(ctypes.c_uint32(index))


# ---- taken and given up ----


def test_every_end_has_a_slot_until_it_is_closed(
    node: Sockops, connection: Connection, other: Connection
) -> None:
    assert set(socket_slots(node).values()) == cookies([connection, other])
    other.close()
    wait_until(lambda: set(socket_slots(node).values()) == cookies([connection]), "two slots given up")


def test_as_many_connections_as_there_is_room_for_and_again(node: Sockops, topology: Topology) -> None:
    """Cookies count on meanwhile, and come round to every slot."""
    with topology.server.listen("0.0.0.0") as listener:
        for _ in range(4):
            with contextlib.ExitStack() as stack:
                for seed in range(MAXIMUM):
                    made = open_connection(topology.client, listener, topology.address4, seed=seed)
                    assert_redirected(node, topology, stack.enter_context(made))
                # The last ones may find every slot they try taken.
                assert len(socket_slots(node)) > MAXIMUM
            assert_tables_empty(node)


def test_a_switch_gives_slots_up_and_adoption_takes_them(own_cgroups: Cgroups) -> None:
    with (
        installation() as node,
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        present(node, own_cgroups.paths, maximum_connections=MAXIMUM)
        node.adopt()
        assert_redirected(node, topology, connection)
        assert set(socket_slots(node).values()) == cookies([connection])
        node.switch(Mode.OFF)
        assert node.release() == ()
        assert socket_slots(node) == {}


# ---- wrong ----


@pytest.mark.parametrize("known", ["none", "free", "another's"])
def test_a_peer_that_is_not_at_its_slot_is_found_in_the_hash(
    node: Sockops, topology: Topology, connection: Connection, other: Connection, known: str
) -> None:
    strangers = slot(node, other.server.socket)
    free = next(index for index in range(2 * MAXIMUM) if index not in socket_slots(node))
    wrong = {"none": None, "free": free, "another's": strangers}[known]
    set_peer_slot(node, connection.client.socket, wrong)
    assert_redirected(node, topology, connection)
    assert_redirected(node, topology, other)


def test_who_lost_its_slot_to_another_takes_it_away_when_it_leaves(
    node: Sockops, topology: Topology, connection: Connection, other: Connection
) -> None:
    take_slot(node, slot(node, other.server.socket))
    assert_redirected(node, topology, other)
    connection.close()
    assert_redirected(node, topology, other)


def test_a_message_for_a_peer_that_is_nowhere_reaches_nobody(
    node: Sockops, connection: Connection, other: Connection
) -> None:
    """Between the look at the peer and the hand-over it left the hash, and another has its slot."""
    set_peer_slot(node, connection.client.socket, slot(node, other.server.socket))
    take_out_of_hash(node, connection.server.socket)
    # Without slots, a message without a peer goes by TCP.
    with pytest.raises(PermissionError) if slots_are_used() else contextlib.nullcontext():
        connection.client.socket.send(MESSAGE)
    other.client.socket.send(MESSAGE)
    assert other.server.socket.recv(1000) == MESSAGE


def test_a_message_to_a_closed_peer_goes_by_tcp_whoever_has_its_slot(
    node: Sockops, connection: Connection, other: Connection
) -> None:
    """It is answered by a reset, as ever: the first write of a reply nobody waits for is no error."""
    set_peer_slot(node, connection.client.socket, slot(node, other.server.socket))
    connection.server.socket.close()
    assert connection.client.socket.recv(1) == b""
    assert connection.client.socket.send(MESSAGE) == len(MESSAGE)
    with pytest.raises(BrokenPipeError):
        connection.client.socket.send(MESSAGE)
    other.client.socket.send(MESSAGE)
    assert other.server.socket.recv(1000) == MESSAGE
