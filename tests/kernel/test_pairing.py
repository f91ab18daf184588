"""The two ends of a connection find each other, however its packets are translated on the way."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.kernel.observation import Counted, assert_redirected
from tests.kernel.topologies import (
    SERVER_SIDE,
    WIRE,
    Cgroups,
    Topology,
    one_pod,
    routed,
    two_pods,
)
from tests.support.connections import Connection, accept, connected, open_connection
from tests.support.netfilter import (
    Endpoint,
    Hook,
    Tool,
    masquerade_with_random_ports,
    redirect_inbound,
    redirect_loopback,
    redirect_outbound,
    translate_destination,
)
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from tests.support.namespaces import NetworkNamespace

TOOLS = pytest.mark.parametrize("tool", list(Tool), ids=lambda tool: tool.value)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
SERVICES = {4: "10.96.0.10", 6: "fd96::10"}
#: Address of the listener and of the client's connect(): both of a family, or one v4-mapped.
FAMILIES = pytest.mark.parametrize(
    ("listen_at", "version", "mapped_client"),
    [("0.0.0.0", 4, False), ("::", 6, False), ("::", 4, False), ("0.0.0.0", 4, True), ("::", 4, True)],
    ids=["ipv4", "ipv6", "mapped-server", "mapped-client", "mapped-both"],
)


def interface_bytes(namespace: NetworkNamespace, interface: str) -> int:
    """Return what an interface has sent, as ip counts it."""
    (found,) = json.loads(namespace.run(["ip", "-j", "-s", "link", "show", interface]))
    return int(found["stats64"]["tx"]["bytes"])


def assert_pairs(node: Sockops, topology: Topology, connection: Connection, counted: Counted) -> None:
    """One connection, made after `counted`, is paired and has all its data redirected."""
    assert counted["connections_paired"] == 1
    assert counted["sockets_inserted"] == 2
    assert_redirected(node, topology, connection)
    assert counted["sockets_evicted"] == 0


@FAMILIES
def test_pairs_over_loopback(
    node: Sockops, cgroups: Cgroups, listen_at: str, version: int, mapped_client: bool
) -> None:
    with one_pod(cgroups) as topology:
        counted = Counted(node)
        address = ("::ffff:" if mapped_client else "") + topology.address(version)
        with connected(topology.client, topology.server, address, listen_at=listen_at) as connection:
            assert_pairs(node, topology, connection, counted)
            assert counted["connections_translated"] == 0


@FAMILIES
def test_pairs_from_pod_to_pod(
    node: Sockops, cgroups: Cgroups, listen_at: str, version: int, mapped_client: bool
) -> None:
    with two_pods(cgroups) as topology:
        counted = Counted(node)
        address = ("::ffff:" if mapped_client else "") + topology.address(version)
        with connected(topology.client, topology.server, address, listen_at=listen_at) as connection:
            assert_pairs(node, topology, connection, counted)
            assert counted["connections_translated"] == 0


def test_redirected_bytes_do_not_cross_the_wire(node: Sockops, cgroups: Cgroups) -> None:
    length = 4_000_000
    with (
        two_pods(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.bulk(length)
        assert_redirected(node, topology, connection)
        ends = (topology.client.namespace, topology.server.namespace)
        before = [interface_bytes(namespace, WIRE) for namespace in ends]
        moved = connection.exchange(100)
        after = [interface_bytes(namespace, WIRE) for namespace in ends]
    assert moved > 1_000_000
    # Neighbour discovery and the like may still talk.
    assert sum(after) - sum(before) < 10_000


@TOOLS
@VERSIONS
def test_pairs_through_redirect_over_loopback(
    node: Sockops, cgroups: Cgroups, tool: Tool, version: int
) -> None:
    with one_pod(cgroups) as topology, topology.server.listen("::") as listener:
        redirect_loopback(topology.client.namespace, 80, listener.getsockname()[1], tool=tool)
        counted = Counted(node)
        with open_connection(topology.client, listener, topology.address(version), 80) as connection:
            assert connection.server.socket.getsockname()[1] != 80
            assert_pairs(node, topology, connection, counted)


@TOOLS
@VERSIONS
def test_pairs_through_redirect_of_what_leaves(
    node: Sockops, cgroups: Cgroups, tool: Tool, version: int
) -> None:
    """Istio's outbound rule: the application means another pod and reaches its own sidecar."""
    with two_pods(cgroups) as topology:
        pod = topology.client.namespace
        redirect_outbound(pod, 15001, proxy_user_id=65534, tool=tool)
        with SocketMaker(pod, cgroups.server) as sidecar, sidecar.listen("::", 15001) as listener:
            counted = Counted(node)
            address = topology.address(version)
            with open_connection(topology.client, listener, address, 9999) as connection:
                assert connection.client.socket.getpeername()[:2] == (address, 9999)
                one_namespace = replace(topology, server=sidecar)
                assert_pairs(node, one_namespace, connection, counted)


@TOOLS
@VERSIONS
def test_pairs_through_redirect_of_what_arrives(
    node: Sockops, cgroups: Cgroups, tool: Tool, version: int
) -> None:
    """Istio's inbound rule: who connects to the application reaches its sidecar."""
    with two_pods(cgroups) as topology, topology.server.listen("::", 15006) as listener:
        redirect_inbound(topology.server.namespace, 80, 15006, tool=tool)
        counted = Counted(node)
        with open_connection(topology.client, listener, topology.address(version), 80) as connection:
            assert_pairs(node, topology, connection, counted)


@TOOLS
@VERSIONS
@pytest.mark.parametrize("hook", [Hook.PREROUTING, Hook.OUTPUT], ids=["router", "client"])
def test_pairs_through_destination_translation(
    node: Sockops, cgroups: Cgroups, hook: Hook, version: int, tool: Tool
) -> None:
    with routed(cgroups) as topology, topology.server.listen("::") as listener:
        service = Endpoint(SERVICES[version], 80)
        backend = Endpoint(topology.address(version), listener.getsockname()[1])
        translating = topology.router if hook is Hook.PREROUTING else topology.client.namespace
        translate_destination(translating, service, backend, hook=hook, tool=tool)
        counted = Counted(node)
        with open_connection(topology.client, listener, service.address, 80) as connection:
            assert_pairs(node, topology, connection, counted)
            assert counted["connections_translated"] == 0


@TOOLS
@VERSIONS
def test_pairs_through_source_translation_to_random_ports(
    node: Sockops, cgroups: Cgroups, tool: Tool, version: int
) -> None:
    with routed(cgroups) as topology, topology.server.listen("::") as listener:
        masquerade_with_random_ports(topology.router, SERVER_SIDE, tool=tool)
        counted = Counted(node)
        with open_connection(topology.client, listener, topology.address(version)) as connection:
            seen_by_server = connection.server.socket.getpeername()[:2]
            assert seen_by_server != connection.client.socket.getsockname()[:2]
            assert_pairs(node, topology, connection, counted)
            assert counted["connections_translated"] == 1


@TOOLS
@VERSIONS
def test_pairs_with_both_ends_translated(node: Sockops, cgroups: Cgroups, tool: Tool, version: int) -> None:
    with routed(cgroups) as topology, topology.server.listen("::") as listener:
        service = Endpoint(SERVICES[version], 80)
        backend = Endpoint(topology.address(version), listener.getsockname()[1])
        translate_destination(topology.router, service, backend, tool=tool)
        masquerade_with_random_ports(topology.router, SERVER_SIDE, tool=tool)
        counted = Counted(node)
        with open_connection(topology.client, listener, service.address, 80) as connection:
            assert_pairs(node, topology, connection, counted)


@VERSIONS
def test_equal_tuples_in_two_pairs_of_pods_do_not_meet(node: Sockops, cgroups: Cgroups, version: int) -> None:
    with two_pods(cgroups) as first, two_pods(cgroups) as second:
        counted = Counted(node)
        connections = []
        for seed, topology in enumerate((first, second)):
            client = topology.client.make(socket.AF_INET if version == 4 else socket.AF_INET6)
            client.bind(("", 40000))
            with topology.server.listen("::", 8080) as listener:
                client.connect((topology.address(version), 8080))
                connections.append(Connection(client, accept(listener), seed=10 * (seed + 1)))
        with connections[0], connections[1]:
            assert connections[0].client.socket.getsockname() == connections[1].client.socket.getsockname()
            assert counted["connections_paired"] == 2
            for _ in range(5):
                assert_redirected(node, first, connections[0])
                assert_redirected(node, second, connections[1])


def test_pairs_every_one_of_many_connections_at_once(node: Sockops, cgroups: Cgroups) -> None:
    number = 200
    with (
        contextlib.ExitStack() as stack,
        one_pod(cgroups) as topology,
        topology.server.listen("::") as listener,
    ):
        counted = Counted(node)
        address = topology.address4
        opened = [
            stack.enter_context(open_connection(topology.client, listener, address, seed=seed))
            for seed in range(number)
        ]
        moved = sum(connection.exchange(2) for connection in opened)
        assert counted["connections_paired"] == number
        assert counted["redirected_bytes"] == moved
        assert counted["tcp_bytes"] == 0
        assert node.status()["connections"] == number
