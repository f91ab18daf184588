"""sockops acts where it was asked to: in named cgroups, on named ports, on plain TCP."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.kernel.installations import installation, present
from tests.kernel.observation import (
    Counted,
    assert_by_tcp,
    assert_redirected,
    assert_tables_empty,
    bytes_by_tcp,
    wait_until,
)
from tests.kernel.topologies import Cgroups, one_pod, two_pods
from tests.support.cgroups import TestCgroup
from tests.support.connections import Connection, accept, connected, open_connection
from tests.support.netfilter import redirect_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshaccel.accelerators.sockops.service import Sockops

OUTER_PORT = 80
PROXY_PORT = 15006
MULTIPATH = socket.IPPROTO_MPTCP


@contextlib.contextmanager
def wished(node: Sockops, cgroups: Cgroups, wishes: Sequence[object], **settings: object) -> Iterator[None]:
    """Have the shared sockops otherwise meanwhile."""
    present(node, wishes, **settings)
    try:
        yield
    finally:
        present(node, cgroups.paths)


@contextlib.contextmanager
def converged(wishes: Sequence[object]) -> Iterator[Sockops]:
    """A sockops of the test's own, over cgroups of its own."""
    with installation() as node:
        present(node, wishes)
        yield node


def test_a_peer_in_no_named_cgroup_is_a_bystander(node: Sockops, cgroups: Cgroups) -> None:
    """The first acknowledgement of its data shows that the peer will never come."""
    with TestCgroup("elsewhere") as elsewhere, one_pod(Cgroups(cgroups.client, elsewhere)) as topology:
        counted = Counted(node)
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert counted["sockets_inserted"] == 1
            moved = connection.exchange(1)
            wait_until(lambda: counted["sockets_evicted"] == 1, "the bystander evicted")
            assert node.live_sockets() == 0
            assert_by_tcp(node, topology, connection)
            connection.bulk(1_000_000)
            assert bytes_by_tcp(topology, connection) > 2_000_000 + moved
            # Once evicted its messages do not even reach the program.
            assert counted["tcp_messages_no_peer"] <= 1
            assert counted["connections_paired"] == 0


def test_a_client_in_no_named_cgroup_finds_no_peer(node: Sockops, cgroups: Cgroups) -> None:
    with TestCgroup("elsewhere") as elsewhere, one_pod(Cgroups(elsewhere, cgroups.server)) as topology:
        counted = Counted(node)
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert counted.all() == {"skipped_no_waiting_peer": 1}
            assert_by_tcp(node, topology, connection)
            assert node.live_sockets() == 0


def test_programs_in_no_named_cgroup_are_not_seen(node: Sockops) -> None:
    with TestCgroup("one") as one, TestCgroup("other") as other, one_pod(Cgroups(one, other)) as topology:
        counted = Counted(node)
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert_by_tcp(node, topology, connection)
        assert counted.all() == {}


@pytest.mark.parametrize(
    ("ports", "pairs"),
    [
        ([OUTER_PORT], True),
        ([PROXY_PORT], True),
        (["15001-15006"], True),
        (["15006-15010"], True),
        ([22, "79-81", 443], True),
        (["15007-15010"], False),
        (["15001-15005"], False),
        ([79, 81, 443], False),
    ],
    ids=str,
)
def test_the_port_of_either_end_decides(
    node: Sockops, cgroups: Cgroups, ports: list[int | str], pairs: bool
) -> None:
    """REDIRECT shows each end another port: the client's is 80, the proxy's is 15006."""
    with wished(node, cgroups, cgroups.paths, ports=ports), one_pod(cgroups) as topology:
        redirect_loopback(topology.client.namespace, OUTER_PORT, PROXY_PORT)
        counted = Counted(node)
        with (
            topology.server.listen("0.0.0.0", PROXY_PORT) as listener,
            open_connection(topology.client, listener, topology.address4, OUTER_PORT) as connection,
        ):
            if pairs:
                assert_redirected(node, topology, connection)
                return
            assert counted["skipped_port"] == 1
            assert_by_tcp(node, topology, connection)
            wait_until(lambda: counted["sockets_evicted"] == 1, "the client evicted")


def test_ports_of_the_two_cgroups_may_differ(node: Sockops, cgroups: Cgroups) -> None:
    """It is enough that one of the two cgroups asks for the port."""
    wishes = [
        {"path": cgroups.client.relative_path, "ports": [OUTER_PORT]},
        {"path": cgroups.server.relative_path, "ports": [443]},
    ]
    with wished(node, cgroups, wishes), one_pod(cgroups) as topology:
        redirect_loopback(topology.client.namespace, OUTER_PORT, PROXY_PORT)
        with (
            topology.server.listen("0.0.0.0", PROXY_PORT) as listener,
            open_connection(topology.client, listener, topology.address4, OUTER_PORT) as connection,
        ):
            assert_redirected(node, topology, connection)
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert_by_tcp(node, topology, connection)


@contextlib.contextmanager
def nested(outer: TestCgroup) -> Iterator[Cgroups]:
    """A cgroup inside another for the client; the server's lies in the outer one itself."""
    with TestCgroup("inner", parent=outer) as inner:
        yield Cgroups(inner, outer)


@pytest.mark.parametrize(("outer_mode", "inner_mode"), [("on", "off"), ("off", "on"), ("on", "on")])
def test_the_innermost_of_nested_cgroups_decides(outer_mode: str, inner_mode: str) -> None:
    with TestCgroup("outer") as outer, nested(outer) as places, TestCgroup("server") as server:
        wishes = [
            {"path": outer.relative_path, "mode": outer_mode},
            {"path": places.client.relative_path, "mode": inner_mode},
            {"path": server.relative_path},
        ]
        inner_path = places.client.relative_path
        with (
            converged(wishes) as node,
            one_pod(Cgroups(places.client, server)) as topology,
            connected(topology.client, topology.server, topology.address4) as connection,
        ):
            inner = Counted(node, inner_path)
            if inner_mode == "on":
                assert_redirected(node, topology, connection)
                assert inner["redirected_messages"] > 0
            else:
                assert_by_tcp(node, topology, connection)
                assert node.status()["cgroups"][inner_path]["counters"]["skipped_mode"] == 1
            outer_counters = node.status()["cgroups"][outer.relative_path]["counters"]
            assert set(outer_counters.values()) == {0}


def test_a_cgroup_below_a_named_one_is_meant_too() -> None:
    with (
        TestCgroup("parent") as parent,
        nested(parent) as places,
        converged([parent.relative_path]) as node,
        one_pod(places) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(node, topology, connection)


def test_modes_of_cgroups_are_their_own(node: Sockops, cgroups: Cgroups) -> None:
    """A cgroup that is off in the desired state takes part in nothing; its neighbour does."""
    with TestCgroup("third") as third:
        wishes = [*cgroups.paths, {"path": third.relative_path, "mode": "off"}]
        with (
            wished(node, cgroups, wishes),
            one_pod(cgroups) as first,
            one_pod(Cgroups(third, cgroups.server)) as second,
            connected(first.client, first.server, first.address4) as accelerated,
            connected(second.client, second.server, second.address4) as plain,
        ):
            assert_redirected(node, first, accelerated)
            assert_by_tcp(node, second, plain)


def test_multipath_tcp_is_left_alone(node: Sockops, cgroups: Cgroups) -> None:
    """Sockets of MPTCP in a sockhash have crashed kernels."""
    with one_pod(cgroups) as topology:
        counted = Counted(node)
        with (
            topology.server.listen("0.0.0.0", protocol=MULTIPATH) as listener,
            Connection(
                topology.client.connect("127.0.0.1", listener.getsockname()[1], protocol=MULTIPATH),
                accept(listener),
            ) as connection,
        ):
            connection.exchange()
            connection.bulk(1_000_000)
            assert counted["skipped_multipath"] >= 1
            assert counted["sockets_inserted"] == 0
            assert counted["redirected_bytes"] == 0


def test_a_plain_client_of_a_multipath_listener_keeps_its_bytes(node: Sockops, cgroups: Cgroups) -> None:
    """What Go's listeners are by default. Whether it pairs is the kernel's matter, order is ours."""
    with (
        one_pod(cgroups) as topology,
        topology.server.listen("0.0.0.0", protocol=MULTIPATH) as listener,
        open_connection(topology.client, listener, topology.address4) as connection,
    ):
        connection.exchange()
        connection.bulk(1_000_000)
    assert_tables_empty(node)


def test_a_bystander_over_a_wire_is_evicted_at_its_first_round_trip(node: Sockops, cgroups: Cgroups) -> None:
    with (
        TestCgroup("elsewhere") as elsewhere,
        two_pods(Cgroups(cgroups.client, elsewhere)) as topology,
    ):
        counted = Counted(node)
        with connected(topology.client, topology.server, topology.address6) as connection:
            connection.exchange(1)
            wait_until(lambda: counted["sockets_evicted"] == 1, "the bystander evicted")
            assert_by_tcp(node, topology, connection)
