"""The inspection of sockets on the running kernel: which are whose peer, and each one's first bytes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import inspection
from meshaccel.accelerators.sockops.inspection import layout, reading
from meshaccel.accelerators.sockops.inspection.sockets import InspectedSocket, Pair, pairs
from meshaccel.accelerators.sockops.observe import Places, observe_loaded
from meshaccel.bpf import attach, layouts
from meshaccel.bpf.loaders import Loader
from meshaccel.errors import Unsupported
from meshaccel.model import Mode
from meshaccel.paths import sibling_object
from meshaccel.system import network_namespaces
from tests.kernel.observation import wait_until
from tests.kernel.topologies import WIRE, Cgroups, Topology, one_pod, routed, two_pods
from tests.support import netfilter
from tests.support.cgroups import TestCgroup
from tests.support.connections import Connection, connected, open_connection
from tests.support.namespaces import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from meshaccel.accelerators.sockops.service import Sockops

FIN_WAIT_2 = 5
CLOSE_WAIT = 8
MANY_CONNECTIONS = 300
TOPOLOGIES = [one_pod, two_pods, routed]


def inspected(node: Sockops) -> list[InspectedSocket]:
    """Return the sockets in the namespaces of the opted-in cgroups."""
    loaded = observe_loaded(Places.of(node.paths), node.hierarchy, {})
    assert loaded is not None
    namespaces = reading.namespaces_of(loaded, node.hierarchy)
    return reading.inspect(Places.of(node.paths), object_of(node), Loader.LIBBPF, namespaces)


def object_of(node: Sockops) -> str:
    """Return the inspection's object beside the accelerator's."""
    return sibling_object(node.object_path, inspection.NAME)


def pair_of(node: Sockops, connection: Connection) -> Pair:
    """Return a connection as the inspection joins it: once, and the right way round."""
    inode = os.fstat(connection.client.socket.fileno()).st_ino
    (found,) = [pair for pair in pairs(inspected(node)) if inode in (pair.client.inode, pair.server.inode)]
    assert found.client.inode == inode
    assert found.server.inode == os.fstat(connection.server.socket.fileno()).st_ino
    return found


def assert_exact(node: Sockops, connection: Connection) -> Pair:
    """What the counters lead back to is what sockops was told when the connection was established."""
    pair = pair_of(node, connection)
    assert pair.client.state is not None
    assert pair.server.state is not None
    assert pair.client_handshake == pair.client.state.handshake
    assert pair.server_handshake == pair.server.state.handshake == pair.client_handshake.swapped
    return pair


# ---- first bytes ----


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("made", TOPOLOGIES)
def test_the_handshake_is_rebuilt_exactly_at_every_stage_of_a_connection(
    node: Sockops,
    cgroups: Cgroups,
    made: Callable[[Cgroups], AbstractContextManager[Topology]],
    version: int,
) -> None:
    with (
        made(cgroups) as topology,
        connected(topology.client, topology.server, topology.address(version)) as connection,
    ):
        pair = assert_exact(node, connection)
        assert (pair.client.bytes_sent, pair.server.bytes_sent) == (0, 0)
        connection.exchange()
        assert_exact(node, connection)
        node.switch_live(Mode.OFF)
        try:
            connection.bulk(300_000)
            pair = assert_exact(node, connection)
            assert pair.client.bytes_sent >= 300_000
            connection.client.send(5000)
            connection.server.send(7)
            pair = assert_exact(node, connection)
            assert (pair.server.unread_bytes, pair.client.unread_bytes) == (5000, 7)
            connection.client.receive(7)
            connection.server.receive(5000)
        finally:
            node.switch_live(Mode.ON)
        connection.client.finish()
        wait_until(
            lambda: pair_of(node, connection).client.tcp_state == FIN_WAIT_2, "the client's FIN acknowledged"
        )
        pair = assert_exact(node, connection)
        assert pair.server.tcp_state == CLOSE_WAIT
        connection.server.send(100)
        assert_exact(node, connection)


def test_bytes_under_way_do_not_mislead(node: Sockops, cgroups: Cgroups) -> None:
    with (
        two_pods(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.exchange()
        node.switch_live(Mode.OFF)
        try:
            topology.server.namespace.run(["ip", "link", "set", WIRE, "down"])
            connection.client.send(3000)
            assert assert_exact(node, connection).client.unacknowledged_bytes == 3000
        finally:
            node.switch_live(Mode.ON)


def test_ends_behind_a_redirect_are_joined(node: Sockops, cgroups: Cgroups) -> None:
    with one_pod(cgroups) as pod, pod.server.listen("0.0.0.0") as listener:
        port = listener.getsockname()[1]
        netfilter.redirect_loopback(pod.client.namespace, 9, port)
        with open_connection(pod.client, listener, pod.address4, 9) as connection:
            pair = assert_exact(node, connection)
            assert (pair.client.remote.port, pair.server.local.port) == (9, port)


def test_what_sockops_does_not_know_is_joined_as_well(node: Sockops, cgroups: Cgroups) -> None:
    with (
        TestCgroup("elsewhere") as elsewhere,
        one_pod(Cgroups(cgroups.client, elsewhere)) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        connection.exchange()
        pair = pair_of(node, connection)
        assert pair.server.state is None
        assert pair.server.cgroup_id == elsewhere.identifier
        assert pair.client.cgroup_id == cgroups.client.identifier


def test_addresses_and_namespaces_are_those_of_the_ends(node: Sockops, cgroups: Cgroups) -> None:
    with (
        two_pods(cgroups) as pods,
        connected(pods.client, pods.server, pods.address6) as connection,
    ):
        pair = pair_of(node, connection)
        assert str(pair.client.local) == "[{}]:{}".format(*connection.client.socket.getsockname()[:2])
        assert pair.client.remote == pair.server.local
        assert pair.client.network_namespace == pods.client.namespace.path.stat().st_ino
        assert pair.server.network_namespace == pods.server.namespace.path.stat().st_ino
        assert pair.client.cookie == cookie(connection.client.socket)


def cookie(of: socket.socket) -> int:
    """Return the kernel's number for a socket."""
    so_cookie = 57
    return int.from_bytes(of.getsockopt(socket.SOL_SOCKET, so_cookie, 8), "little")


def test_listeners_and_closed_connections_are_left_out(node: Sockops, cgroups: Cgroups) -> None:
    with one_pod(cgroups) as pod, pod.server.listen("0.0.0.0") as listener:
        with open_connection(pod.client, listener, pod.address4) as connection:
            assert len(inspected(node)) == 2
            connection.exchange()
        assert inspected(node) == []


def test_more_sockets_than_the_kernel_hands_over_at_once_are_all_seen_once(
    node: Sockops, cgroups: Cgroups
) -> None:
    with (
        contextlib.ExitStack() as stack,
        one_pod(cgroups) as pod,
        pod.server.listen("0.0.0.0") as listener,
    ):
        for seed in range(MANY_CONNECTIONS):
            stack.enter_context(open_connection(pod.client, listener, pod.address4, seed=seed))
        found = inspected(node)
        assert len(found) * ctypes.sizeof(layout.Record) > attach.ITERATOR_CHUNK
        assert len(found) == len({each.cookie for each in found}) == 2 * MANY_CONNECTIONS
        assert len(pairs(found)) == MANY_CONNECTIONS


# ---- loading and namespaces ----


def test_the_built_object_has_the_record_as_it_is_declared(node: Sockops) -> None:
    layouts.check(object_of(node), layout.STRUCTURES)


def test_an_object_that_the_kernel_does_not_take_is_told_with_the_lowest_kernel(
    node: Sockops, tmp_path: Path
) -> None:
    damaged = tmp_path / "sockops_inspection.bpf.o"
    # The name of the helper's program type: libbpf then knows no such program.
    damaged.write_bytes(Path(object_of(node)).read_bytes().replace(b"iter/tcp\0", b"iter/tcq\0"))
    with pytest.raises(Unsupported, match=r"Linux 5\.12 or newer"):
        reading.inspect(Places.of(node.paths), str(damaged), Loader.LIBBPF, [])


def test_a_namespace_that_is_gone_is_left_out(node: Sockops) -> None:
    assert reading.inspect(Places.of(node.paths), object_of(node), Loader.LIBBPF, ["/proc/0/ns/net"]) == []


def test_a_thread_comes_back_from_a_namespace_after_errors_and_leaves_others_where_they_are() -> None:
    def own() -> int:
        return Path(network_namespaces.OWN_NAMESPACE).stat().st_ino

    before, elsewhere = own(), []
    with NetworkNamespace("elsewhere") as namespace:
        inside = namespace.path.stat().st_ino

        def look() -> None:
            elsewhere.append(own())

        def fail_inside() -> None:
            with network_namespaces.entered(str(namespace.path)):
                assert own() == inside
                other = threading.Thread(target=look)
                other.start()
                other.join()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail_inside()
    assert own() == before
    # A thread that is started inside begins there: the namespace is the thread's own.
    assert elsewhere == [inside]
