"""A connection that is a stream goes back to TCP: recognised, complete, without a byte lost."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.bench.competitors import competitors
from tests.kernel.installations import present
from tests.kernel.observation import Counted, assert_redirected, assert_tables_empty, wait_until
from tests.kernel.topologies import Cgroups, one_pod, two_pods
from tests.support import mesh_load
from tests.support.connections import Connection, connected, send_in_pieces
from tests.support.mesh_load import Client
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from tests.support.mesh_load import ClientMode, ServerMode

PORT = 7200
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SMALL = 64
STREAM_WRITES = 3000
LARGE = 131_072
#: The first write of each is redirected, the others find the reader behind: more than 32 MB by TCP.
BURSTS = 20
BURST_WRITES = 16
SECONDS = 60.0


def set_nagle(end: socket.socket, *, on: bool) -> None:
    """Have TCP join small writes, as it does unless a program says otherwise."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not on)


def stream(connection: Connection, writes: int, size: int) -> None:
    """Write without pause from one thread; read what there is from another."""
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(send_in_pieces, connection.client, writes * size, size)
        reading = threads.submit(connection.server.receive, writes * size)
        writing.result(SECONDS)
        reading.result(SECONDS)


def fall_behind(connection: Connection, writes: int, size: int) -> None:
    """Write so much before the reader begins, then let it catch up."""
    send_in_pieces(connection.client, writes * size, size)
    connection.server.receive(writes * size)


def test_a_stream_of_small_writes_is_handed_back(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        set_nagle(connection.client.socket, on=True)
        fall_behind(connection, STREAM_WRITES, SMALL)
        stream(connection, STREAM_WRITES, SMALL)
        connection.exchange()
        wait_until(lambda: own_node.live_sockets() == 0, "both ends back on TCP")
        counted = Counted(own_node)
        connection.exchange()
        stream(connection, STREAM_WRITES, SMALL)
        assert counted.all() == {}, "sockops still sees messages of a connection that is TCP's"
    assert own_node.status()["counters"]["sockets_handed_back"] == 2


def leave_one_way(node: Sockops, connection: Connection) -> None:
    """Write a stream to a reader that never writes, until neither end is in the table."""
    set_nagle(connection.client.socket, on=True)
    fall_behind(connection, STREAM_WRITES, SMALL)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(connection.server.receive, LARGE)
        sent = 0
        while node.live_sockets():
            assert sent < LARGE
            connection.client.send(1)
            sent += 1
        connection.client.send(LARGE - sent)
        reading.result(SECONDS)


def test_a_reader_that_never_writes_leaves_with_its_writer(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """It has no acknowledgements to leave by, so its writer takes it out, while it is blocked in recv()."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        leave_one_way(own_node, connection)
        counted = Counted(own_node)
        connection.exchange()
        assert counted.all() == {}, "sockops still sees messages of a connection that is TCP's"


def test_a_connection_that_left_is_adopted_again_if_one_asks(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        leave_one_way(own_node, connection)
        assert own_node.adopt().startswith("adopted 1 of 1 ")
        assert_redirected(own_node, topology, connection)


def test_requests_and_replies_are_no_stream(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        set_nagle(connection.client.socket, on=True)
        for _ in range(STREAM_WRITES):
            connection.client.send(SMALL)
            connection.server.receive(SMALL)
            connection.server.send(SMALL)
            connection.client.receive(SMALL)
        assert_redirected(own_node, topology, connection)
        assert own_node.live_sockets() == 2


def test_large_writes_to_a_reader_that_keeps_up_are_no_stream(
    own_node: Sockops, own_cgroups: Cgroups
) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        for _ in range(500):
            connection.client.send(LARGE)
            connection.server.receive(LARGE)
        assert_redirected(own_node, topology, connection)


def test_a_stream_that_fills_the_readers_memory_is_handed_back(
    own_node: Sockops, own_cgroups: Cgroups
) -> None:
    """The most of it goes by TCP anyway, since the reader's memory is full again and again."""
    present(own_node, own_cgroups.paths, receive_memory_limit=65536)
    with (
        two_pods(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.client.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * BURST_WRITES * LARGE)
        connection.server.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 2 * BURST_WRITES * LARGE)
        for _ in range(BURSTS):
            fall_behind(connection, BURST_WRITES, LARGE)
        connection.exchange()
        wait_until(lambda: own_node.live_sockets() == 0, "both ends back on TCP")
        stream(connection, 200, LARGE)


def test_the_peer_writes_all_the_while(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """What it redirected must be read before the socket leaves, and what comes later go by TCP."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        ThreadPoolExecutor(4) as threads,
    ):
        set_nagle(connection.client.socket, on=True)
        length = 200 * STREAM_WRITES * SMALL
        answers = 40_000
        work = [
            threads.submit(send_in_pieces, connection.client, length, SMALL),
            threads.submit(connection.server.receive, length),
            threads.submit(send_in_pieces, connection.server, answers * 7, 7),
            threads.submit(connection.client.receive, answers * 7),
        ]
        for each in work:
            each.result(SECONDS)
    assert own_node.status()["counters"]["redirected_bytes"] > 0


@pytest.mark.parametrize(("mode", "server_mode"), [("stream", "sink"), ("mixed", "mixed-server")])
def test_many_streams_on_a_busy_machine(
    own_node: Sockops, own_cgroups: Cgroups, mode: ClientMode, server_mode: ServerMode
) -> None:
    """Every byte of every connection is checked by its reader, while both CPUs have other work."""
    with (
        one_pod(own_cgroups) as topology,
        competitors(),
        ManagedProcess(
            mesh_load.server_command(server_mode, PORT, verify=True),
            Placement(topology.server.namespace, own_cgroups.server),
        ) as server,
    ):
        server.wait_for_port(PORT)
        for size in (SMALL, 1024, LARGE):
            load = Client(mode, size=size, connections=4, duration=2.0, verify=True, patience=30)
            run(
                load.command(topology.address4, PORT),
                Placement(topology.client.namespace, own_cgroups.client),
                timeout=load.time_limit,
            )
        assert own_node.status()["counters"]["sockets_handed_back"] > 0
    assert_tables_empty(own_node)
