"""Connections that were open before sockops was: taken over live, without a byte lost or moved."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.installations import installation, present
from tests.kernel.observation import Counted, assert_redirected, assert_tables_empty, counters, wait_until
from tests.kernel.topologies import one_pod, routed, two_pods
from tests.support import mesh_load
from tests.support.connections import Connection, connected, open_connection
from tests.support.mesh_load import Client
from tests.support.netfilter import redirect_inbound
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups, Topology

PORT = 7100
OUTER_PORT = 7101
MEGABYTE = 1_000_000
LIVE_CONNECTIONS = 1000
CYCLES = 20
SECONDS = 30.0
#: Enough for a thread of this process to sleep in the call it was made for.
BLOCKING_SECONDS = 0.3
SHARE = re.compile(r"adopted (\d+) of (\d+) live connections")


@pytest.fixture
def idle_node(own_cgroups: Cgroups) -> Iterator[tuple[Sockops, Cgroups]]:
    """An installation without sockops, and the cgroups to put it in."""
    with installation() as node:
        yield node, own_cgroups


def share(report: str) -> tuple[int, int]:
    """Return how many connections were adopted, of how many."""
    found = SHARE.match(report)
    assert found, report
    return int(found[1]), int(found[2])


def switch_on(node: Sockops, cgroups: Cgroups) -> str:
    """Converge with adoption; return what the run says of it."""
    wish = node.parse({"cgroups": cgroups.paths, "adopt_existing": True})
    result = node.converge(wish)
    assert [action.kind for action in result.actions][-1] == "sockops.adopt"
    assert not node.converge(wish).changed
    return result.notes[-1]


@contextlib.contextmanager
def reading(work: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """Have a thread block in a call; yields what returns its result."""
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(work)
        yield lambda: future.result(SECONDS)


def await_redirected(node: Sockops, messages: int) -> None:
    """Wait until so many more messages were redirected."""
    counted = Counted(node)
    wait_until(lambda: counted["redirected_messages"] > messages, "messages redirected")


def established(topology: Topology) -> int:
    """Return how many connections to PORT have their client's end in a pod."""
    listed = topology.client.namespace.run(["ss", "-Htn", "state", "established", f"dport = :{PORT}"])
    return len(listed.splitlines())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pods", [one_pod, two_pods], ids=["one-pod", "two-pods"])
def test_a_connection_with_a_past_is_taken_over(
    idle_node: tuple[Sockops, Cgroups],
    pods: Callable[[Cgroups], contextlib.AbstractContextManager[Topology]],
    version: int,
) -> None:
    node, cgroups = idle_node
    with (
        pods(cgroups) as topology,
        connected(topology.client, topology.server, topology.address(version)) as connection,
    ):
        connection.exchange()
        assert share(switch_on(node, cgroups)) == (1, 1)
        assert_redirected(node, topology, connection)
        connection.bulk(MEGABYTE)


def test_unread_bytes_come_first(idle_node: tuple[Sockops, Cgroups]) -> None:
    """What waits unread at the adoption went by TCP; later bytes stay behind it."""
    node, cgroups = idle_node
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.client.send(5000)
        connection.server.send(70)
        switch_on(node, cgroups)
        counted = Counted(node)
        connection.client.send(6000)
        assert counted["tcp_messages_order"] == 1
        connection.server.receive(11_000)
        connection.client.send(100)
        assert counted["redirected_bytes"] == 100
        connection.server.receive(100)
        connection.client.receive(70)
        assert_redirected(node, topology, connection)


def test_a_translated_connection_is_taken_over(idle_node: tuple[Sockops, Cgroups]) -> None:
    """The two ends know different addresses; their sequence numbers agree."""
    node, cgroups = idle_node
    with (
        routed(cgroups) as topology,
        topology.server.listen("0.0.0.0", PORT) as listener,
    ):
        redirect_inbound(topology.server.namespace, OUTER_PORT, PORT)
        with open_connection(topology.client, listener, topology.address4, OUTER_PORT) as connection:
            connection.exchange()
            assert share(switch_on(node, cgroups)) == (1, 1)
            assert_redirected(node, topology, connection)


def test_a_reader_that_blocks_for_good_keeps_its_connection_on_tcp(
    idle_node: tuple[Sockops, Cgroups],
) -> None:
    """It sleeps in TCP's own call, where redirected bytes would not wake it."""
    node, cgroups = idle_node
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        reading(lambda: connection.server.socket.recv(100)) as result,
    ):
        time.sleep(BLOCKING_SECONDS)
        report = switch_on(node, cgroups)
        assert share(report) == (0, 1)
        assert "2 sockets: a thread waits in a call that began before" in report
        connection.client.send(10)
        connection.server.incoming.check(result())
        assert node.live_sockets() == 0
        assert share(node.adopt()) == (1, 1)
        assert_redirected(node, topology, connection)


def test_a_reader_that_waits_for_all_its_bytes_gets_them(idle_node: tuple[Sockops, Cgroups]) -> None:
    """MSG_WAITALL: the reader stays in one call of TCP's while byte after byte is consumed."""
    node, cgroups = idle_node
    pieces, piece = 40, 1000
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        reading(lambda: connection.server.socket.recv(pieces * piece, socket.MSG_WAITALL)) as result,
        ThreadPoolExecutor(1) as threads,
    ):
        time.sleep(BLOCKING_SECONDS)
        adoption = threads.submit(switch_on, node, cgroups)
        for _ in range(pieces):
            connection.client.send(piece)
            time.sleep(0.1)
        received = result()
        assert len(received) == pieces * piece
        connection.server.incoming.check(received)
        assert share(adoption.result(SECONDS)) == (1, 1)
        assert_redirected(node, topology, connection)


def test_readers_that_block_between_messages_are_taken_over(idle_node: tuple[Sockops, Cgroups]) -> None:
    """A thread for each connection, as many servers have: traffic frees it from TCP's own call."""
    node, cgroups = idle_node
    stop = threading.Event()
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        ThreadPoolExecutor(2) as threads,
    ):
        serving = threads.submit(answer, connection, stop)
        asking = threads.submit(ask, connection, stop)
        assert share(switch_on(node, cgroups)) == (1, 1)
        await_redirected(node, 100)
        stop.set()
        asking.result(SECONDS)
        serving.result(SECONDS)


def ask(connection: Connection, stop: threading.Event) -> None:
    """Ask and wait for the answer, again and again; at last end the stream."""
    while not stop.is_set():
        connection.client.send(100)
        connection.client.receive(200)
    connection.client.finish()


def answer(connection: Connection, stop: threading.Event) -> None:
    """Answer each question with a blocking reader."""
    while not stop.is_set() or connection.server.incoming.position < connection.client.outgoing.position:
        begin = connection.server.incoming.position
        if not connection.server.read(100):
            return
        connection.server.receive(100 - (connection.server.incoming.position - begin))
        connection.server.send(200)


def test_connections_of_others_are_left_alone(idle_node: tuple[Sockops, Cgroups]) -> None:
    node, cgroups = idle_node
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        wish = node.parse({"cgroups": [cgroups.paths[0]], "adopt_existing": True})
        report = node.converge(wish).notes[-1]
        assert share(report) == (0, 0)
        assert "1 sockets: the peer is on another node or not opted in" in report
        connection.exchange()
        assert node.live_sockets() == 0


def test_a_port_that_is_not_named_is_left_alone(idle_node: tuple[Sockops, Cgroups]) -> None:
    node, cgroups = idle_node
    with (
        one_pod(cgroups) as topology,
        topology.server.listen("0.0.0.0", PORT) as listener,
        open_connection(topology.client, listener, topology.address4) as connection,
    ):
        wish = node.parse({"cgroups": cgroups.paths, "ports": [PORT + 1], "adopt_existing": True})
        report = node.converge(wish).notes[-1]
        assert "2 sockets: neither end has a named port" in report
        connection.exchange()
        assert node.live_sockets() == 0


@pytest.mark.machine
def test_twenty_cycles_under_load(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """A thousand live connections, every byte checked, go to and fro between TCP and sockops."""
    with (
        one_pod(own_cgroups) as topology,
        ManagedProcess(
            mesh_load.server_command("echo", PORT), Placement(topology.server.namespace, own_cgroups.server)
        ) as server,
    ):
        server.wait_for_port(PORT)
        own_node.switch_live(Mode.OFF)
        load = Client(
            "pingpong", size=700, connections=LIVE_CONNECTIONS, duration=600, verify=True, patience=30
        )
        with ManagedProcess(
            load.command(topology.address4, PORT), Placement(topology.client.namespace, own_cgroups.client)
        ) as client:
            wait_until(lambda: established(topology) == LIVE_CONNECTIONS, "the load runs")
            for _ in range(CYCLES):
                own_node.switch_live(Mode.ON)
                assert share(own_node.adopt()) == (LIVE_CONNECTIONS, LIVE_CONNECTIONS)
                await_redirected(own_node, LIVE_CONNECTIONS)
                own_node.switch_live(Mode.OFF)
                own_node.release()
                assert client.is_running(), client.failure("ended")
    assert counters(own_node)["redirected_messages"] > CYCLES * LIVE_CONNECTIONS
    present(own_node, own_cgroups.paths)
    assert_tables_empty(own_node)
