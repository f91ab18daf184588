"""How connections end, and begin again: nothing is lost on the way, nothing stays behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.observe import Places
from tests.kernel.observation import (
    Counted,
    assert_accelerates,
    assert_redirected,
    assert_tables_empty,
    wait_until,
)
from tests.kernel.topologies import Cgroups, one_pod, two_pods
from tests.support import mesh_load
from tests.support.connections import Connection, End, accept, connected, open_connection
from tests.support.mesh_load import Client
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

PORT = 9000
ROUNDS = 30
QUEUED_BYTES = 500_000
RESET = struct.pack("ii", 1, 0)
"""struct linger: on, zero seconds."""
ADDRESS_SIZE = 16
DIRECTIONS = pytest.mark.parametrize("first", ["client", "server"])


def dump(node: Sockops, name: str) -> list[object]:
    """Return the entries of a map, as bpftool reads them."""
    entries = json.loads(run(["bpftool", "-j", "map", "dump", "pinned", Places.of(node.paths).map(name)]))
    return list(entries)


def assert_nothing_tracked(node: Sockops) -> None:
    """No end is left by our own count, and none by bpftool's."""
    assert_tables_empty(node)
    assert dump(node, "ends") == []
    wait_until(lambda: dump(node, "sockets") == [], "the socket hash empty")


def ends_of(connection: Connection, first: str) -> tuple[End, End]:
    """Return the end that acts first, and the other."""
    ends = (connection.client, connection.server)
    return ends if first == "client" else ends[::-1]


@DIRECTIONS
def test_half_close_leaves_the_other_direction_open(node: Sockops, cgroups: Cgroups, first: str) -> None:
    with one_pod(cgroups) as topology:
        for seed in range(ROUNDS):
            with connected(topology.client, topology.server, topology.address4, seed=seed) as connection:
                closing, other = ends_of(connection, first)
                closing.send(QUEUED_BYTES)
                closing.finish()
                # The FIN is there by TCP long before these bytes are read.
                assert other.receive_rest() == QUEUED_BYTES
                other.send(QUEUED_BYTES)
                closing.receive(QUEUED_BYTES)
                other.finish()
                assert closing.receive_rest() == QUEUED_BYTES
    assert_nothing_tracked(node)


@DIRECTIONS
def test_close_with_data_under_way_delivers_it(node: Sockops, cgroups: Cgroups, first: str) -> None:
    with two_pods(cgroups) as topology:
        counted = Counted(node)
        for seed in range(ROUNDS):
            with connected(topology.client, topology.server, topology.address4, seed=seed) as connection:
                closing, other = ends_of(connection, first)
                closing.send(QUEUED_BYTES)
                closing.socket.close()
                assert other.receive_rest() == QUEUED_BYTES
        assert counted["redirected_bytes"] == ROUNDS * QUEUED_BYTES
    assert_nothing_tracked(node)


@DIRECTIONS
def test_reset_reaches_the_other_end(node: Sockops, cgroups: Cgroups, first: str) -> None:
    with one_pod(cgroups) as topology:
        for seed in range(ROUNDS):
            with connected(topology.client, topology.server, topology.address4, seed=seed) as connection:
                connection.exchange(2)
                resetting, other = ends_of(connection, first)
                resetting.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                resetting.socket.close()
                with pytest.raises(ConnectionResetError):
                    other.read(1)
    assert_nothing_tracked(node)


def test_a_port_used_again_is_a_connection_of_its_own(node: Sockops, cgroups: Cgroups) -> None:
    with one_pod(cgroups) as topology, topology.server.listen("0.0.0.0", PORT) as listener:
        counted = Counted(node)
        for seed in range(ROUNDS):
            client = topology.client.make()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((topology.address4, 40000))
            client.connect((topology.address4, PORT))
            with Connection(client, accept(listener), seed) as connection:
                assert_redirected(node, topology, connection)
                # The server closes first and keeps the time wait, so the client's port is free again.
                connection.server.socket.close()
                assert connection.client.receive_rest() == connection.client.incoming.position
        assert counted["connections_paired"] == ROUNDS
        assert counted["skipped_duplicate"] == 0
    assert_nothing_tracked(node)


def disconnect(client: socket.socket) -> None:
    """connect(2) to AF_UNSPEC, which Python's own connect() does not know."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(client.fileno(), bytes(ADDRESS_SIZE), ADDRESS_SIZE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def test_a_socket_that_disconnects_and_connects_again(node: Sockops, cgroups: Cgroups) -> None:
    """The socket remembers its first connection's handshake; the next has to get its own."""
    with (
        one_pod(cgroups) as topology,
        topology.server.listen("0.0.0.0", PORT) as listener,
        topology.client.connect(topology.address4, PORT) as client,
    ):
        counted = Counted(node)
        for seed in range(ROUNDS):
            with accept(listener) as server:
                connection = Connection(client, server, seed)
                assert_redirected(node, topology, connection)
                assert len(dump(node, "sockets")) == 2
                disconnect(client)
                with pytest.raises(ConnectionResetError):
                    connection.server.read(1)
            # The kernel keeps a disconnected socket in its table, in case bytes wait to be read.
            wait_until(lambda: len(dump(node, "sockets")) == 1, "the server's socket gone")
            client.connect((topology.address4, PORT))
        assert counted["connections_paired"] == ROUNDS
    assert_nothing_tracked(node)


def test_unread_bytes_of_a_former_connection_are_gone(node: Sockops, cgroups: Cgroups) -> None:
    with (
        one_pod(cgroups) as topology,
        topology.server.listen("0.0.0.0", PORT) as listener,
        topology.client.connect(topology.address4, PORT) as client,
    ):
        with accept(listener) as server:
            server.sendall(b"never read")
            disconnect(client)
        client.connect((topology.address4, PORT))
        with accept(listener) as server:
            assert_redirected(node, topology, Connection(client, server))
    assert_nothing_tracked(node)


@pytest.mark.machine
def test_thousands_of_short_connections(node: Sockops, cgroups: Cgroups) -> None:
    with one_pod(cgroups) as topology:
        pod = topology.client.namespace
        pod.set_sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        counted = Counted(node)
        server = ManagedProcess(mesh_load.server_command("echo", PORT), Placement(pod, cgroups.server))
        client = Client("connect", size=500, connections=32, duration=3.0, verify=True)
        with server as serving:
            serving.wait_for_port(PORT)
            command = client.command(topology.address4, PORT)
            output = run(command, Placement(pod, cgroups.client), timeout=client.time_limit)
            serving.send_signal(signal.SIGTERM)
            accepted = json.loads(serving.wait(10.0))
        requests = mesh_load.parse_requests(output).requests
        assert requests > 3000
        assert counted["connections_paired"] == accepted["connections"] >= requests
        assert counted["sockets_inserted"] == 2 * accepted["connections"]
        assert counted["redirected_bytes"] + counted["tcp_bytes"] == 2 * accepted["bytes"]
        assert counted["redirected_bytes"] > accepted["bytes"]
    assert_nothing_tracked(node)


@contextlib.contextmanager
def streaming(node: Sockops, cgroups: Cgroups) -> Iterator[dict[str, ManagedProcess]]:
    """Run many streams from a client to a sink meanwhile, and wait until they are under way."""
    load = Client("stream", size=8_000, connections=50, duration=30.0, verify=True)
    with one_pod(cgroups) as topology:
        pod = topology.client.namespace
        sink = mesh_load.server_command("sink", PORT, verify=True)
        with ManagedProcess(sink, Placement(pod, cgroups.server)) as server:
            server.wait_for_port(PORT)
            counted = Counted(node)
            command = load.command(topology.address4, PORT)
            with ManagedProcess(command, Placement(pod, cgroups.client)) as client:
                wait_until(lambda: counted["redirected_bytes"] > 10_000_000, "the load runs")
                yield {"client": client, "server": server}


@pytest.mark.parametrize(("killed", "other"), [("client", "server"), ("server", "client")])
def test_a_process_killed_in_the_middle(node: Sockops, cgroups: Cgroups, killed: str, other: str) -> None:
    with streaming(node, cgroups) as processes:
        processes[killed].send_signal(signal.SIGKILL)
        wait_until(lambda: not processes[killed].is_running(), "the victim is dead")
        assert_nothing_tracked(node)
        assert_accelerates(node, cgroups)
        # A sink outlives its clients; a client that lost its server gives up.
        wait_until(lambda: processes[other].is_running() == (other == "server"), "the other end has seen it")
    assert_nothing_tracked(node)


def test_an_accepted_connection_that_its_client_has_left(node: Sockops, cgroups: Cgroups) -> None:
    """Written and closed before anybody accepted: the bytes wait in the server's socket."""
    with one_pod(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        for seed in range(ROUNDS):
            client = End(
                topology.client.connect(topology.address4, listener.getsockname()[1]), seed, active=True
            )
            client.send(QUEUED_BYTES)
            client.socket.close()
            with accept(listener) as server:
                assert End(server, seed, active=False).receive_rest() == QUEUED_BYTES
    assert_nothing_tracked(node)


def test_connections_that_nobody_accepts(node: Sockops, cgroups: Cgroups) -> None:
    """The kernel closes them with their listener."""
    with one_pod(cgroups) as topology:
        with topology.server.listen("0.0.0.0") as listener:
            port = listener.getsockname()[1]
            clients = [
                End(topology.client.connect(topology.address4, port), seed, active=True)
                for seed in range(ROUNDS)
            ]
            for client in clients:
                client.send(100)
        for client in clients:
            with client.socket, pytest.raises(ConnectionResetError):
                client.read(1)
    assert_nothing_tracked(node)


def test_both_ends_in_one_process(node: Sockops, cgroups: Cgroups) -> None:
    """A program that connects to itself is paired like any other."""
    places = Cgroups(cgroups.client, cgroups.client)
    with (
        one_pod(places) as topology,
        topology.client.listen("0.0.0.0") as listener,
        open_connection(topology.client, listener, topology.address4) as connection,
    ):
        assert_redirected(node, topology, connection)
    assert_nothing_tracked(node)
