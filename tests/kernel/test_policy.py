"""What packets would have met: networks that stay on TCP, and a cgroup that is given back to it at once."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.denials import table
from meshaccel.accelerators.sockops.observe import Places
from meshaccel.errors import InvalidInput
from meshaccel.model import Mode
from meshaccel.system import network_namespaces
from tests.kernel.installations import absent, installation, present
from tests.kernel.load import running_load
from tests.kernel.observation import (
    Counted,
    assert_by_tcp,
    assert_redirected,
    bytes_by_tcp,
    wait_until,
)
from tests.kernel.topologies import Cgroups, Topology, one_pod, routed, two_pods
from tests.support.connections import connected, open_connection
from tests.support.namespaces import NetworkNamespace
from tests.support.netfilter import Endpoint, translate_destination

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.support.connections import Connection

CLIENT4, SERVER4 = "10.77.0.1", "10.77.0.2"
CLIENT6, SERVER6 = "fd77::1", "fd77::2"
SERVICE4 = "10.96.0.10"
PORT = 7080
QUEUED_BYTES = 200_000
ARRIVAL_SECONDS = 0.5
RULE_CHANGES = 3


def deny(node: Sockops, cgroups: Cgroups, *networks: object, **settings: object) -> None:
    """Converge to these denied networks."""
    assert present(node, cgroups.paths, denied_networks=list(networks), **settings).changed


# ---- denied networks, new connections ----


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        pytest.param(4, SERVER4, id="server"),
        pytest.param(4, CLIENT4, id="client"),
        pytest.param(4, "10.0.0.0/8", id="both"),
        pytest.param(4, "0.0.0.0/0", id="all-of-ipv4"),
        pytest.param(4, {"network": "10.77.0.0/24", "ports": [1, PORT]}, id="port"),
        pytest.param(4, {"network": CLIENT4, "ports": [f"{PORT - 1}-{PORT}"]}, id="other-ends-port"),
        pytest.param(4, f"::ffff:{SERVER4}", id="mapped"),
        pytest.param(6, SERVER6, id="server6"),
        pytest.param(6, CLIENT6, id="client6"),
        pytest.param(6, "::/0", id="all-of-ipv6"),
        pytest.param(6, {"network": "fd00::/8", "ports": [PORT]}, id="port6"),
    ],
)
def test_a_connection_with_an_end_in_a_denied_network_stays_on_tcp(
    own_node: Sockops, own_cgroups: Cgroups, version: int, rule: object
) -> None:
    deny(own_node, own_cgroups, rule)
    with two_pods(own_cgroups) as topology, topology.server.listen("::", PORT) as listener:
        counted = Counted(own_node)
        with open_connection(topology.client, listener, topology.address(version)) as connection:
            assert_by_tcp(own_node, topology, connection)
            assert counted["skipped_denied"] >= 1
            assert counted["connections_paired"] == 0
            wait_until(lambda: own_node.live_sockets() == 0, "neither end is in the table")


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        pytest.param(4, "10.78.0.0/16", id="elsewhere"),
        pytest.param(4, "::/0", id="ipv6-is-not-ipv4"),
        pytest.param(6, "0.0.0.0/0", id="ipv4-is-not-ipv6"),
        pytest.param(4, {"network": "10.0.0.0/8", "ports": [PORT + 1]}, id="other-port"),
        pytest.param(6, {"network": "::/0", "ports": [PORT - 1]}, id="other-port6"),
    ],
)
def test_other_connections_are_accelerated_beside_a_denied_network(
    own_node: Sockops, own_cgroups: Cgroups, version: int, rule: object
) -> None:
    deny(own_node, own_cgroups, rule)
    with two_pods(own_cgroups) as topology, topology.server.listen("::", PORT) as listener:
        counted = Counted(own_node)
        with open_connection(topology.client, listener, topology.address(version)) as connection:
            assert_redirected(own_node, topology, connection)
            assert counted["skipped_denied"] == 0


def test_a_small_network_has_the_ports_of_the_large_ones_around_it(
    own_node: Sockops, own_cgroups: Cgroups
) -> None:
    """The kernel finds the longest match alone: /32 must not hide /8."""
    rules = [
        {"network": "10.0.0.0/8", "ports": [PORT]},
        {"network": "10.77.0.0/24", "ports": [PORT + 1]},
        {"network": SERVER4, "ports": [PORT + 2]},
    ]
    deny(own_node, own_cgroups, *rules)
    with two_pods(own_cgroups) as topology:
        for port in (PORT, PORT + 1, PORT + 2, PORT + 3):
            counted = Counted(own_node)
            with (
                topology.server.listen("::", port) as listener,
                open_connection(topology.client, listener, SERVER4) as connection,
            ):
                connection.exchange()
                assert bool(counted["skipped_denied"]) == (port != PORT + 3)
                assert bool(counted["redirected_bytes"]) == (port == PORT + 3)


@contextlib.contextmanager
def behind_a_service(cgroups: Cgroups) -> Iterator[tuple[Topology, socket.socket]]:
    """The client reaches the server at another address as well; with the server's listener."""
    with routed(cgroups) as topology, topology.server.listen("::", PORT) as listener:
        backend = Endpoint(topology.address4, PORT)
        translate_destination(topology.router, Endpoint(SERVICE4, PORT), backend)
        yield topology, listener


@pytest.mark.parametrize("rule", [SERVICE4, "10.78.2.2"], ids=["as-the-client-sees-it", "as-the-server-is"])
def test_behind_a_service_address_either_view_denies(
    own_node: Sockops, own_cgroups: Cgroups, rule: str
) -> None:
    with behind_a_service(own_cgroups) as (topology, listener):
        with open_connection(topology.client, listener, SERVICE4) as connection:
            assert_redirected(own_node, topology, connection)
        deny(own_node, own_cgroups, rule)
        counted = Counted(own_node)
        with open_connection(topology.client, listener, SERVICE4) as connection:
            assert_by_tcp(own_node, topology, connection)
        assert counted["skipped_denied"] >= 1


# ---- denied networks, live connections ----


@pytest.mark.parametrize("rule", [CLIENT4, SERVER4, {"network": "10.0.0.0/8", "ports": [PORT]}], ids=str)
def test_a_new_rule_gives_live_connections_to_tcp(
    own_node: Sockops, own_cgroups: Cgroups, rule: object
) -> None:
    """From its next message on; what was redirected before and waits unread is read first."""
    with two_pods(own_cgroups) as topology, topology.server.listen("::", PORT) as listener:
        with (
            open_connection(topology.client, listener, SERVER4) as denied,
            open_connection(topology.client, listener, SERVER6, seed=2) as other,
        ):
            assert_redirected(own_node, topology, denied)
            assert_redirected(own_node, topology, other)
            denied.client.send(QUEUED_BYTES)
            deny(own_node, own_cgroups, rule)
            before = bytes_by_tcp(topology, denied)
            denied.client.send(1000)
            assert bytes_by_tcp(topology, denied) - before == 1000
            denied.server.receive(QUEUED_BYTES + 1000)
            assert_by_tcp(own_node, topology, denied)
            assert_redirected(own_node, topology, other)
            await_plain(own_node, denied, left=2)
            denied.bulk(2_000_000)
        assert_lifted(own_node, own_cgroups, topology)


def await_plain(node: Sockops, connection: Connection, left: int) -> None:
    """Acknowledgements of its bytes take both ends out of the table, in which so many are left."""

    def exchanged() -> bool:
        connection.exchange(1)
        return node.live_sockets() == left

    wait_until(exchanged, f"{left} sockets in the table")


def assert_lifted(node: Sockops, cgroups: Cgroups, topology: Topology) -> None:
    """Without the rule a new connection is accelerated, and one that was denied stays on TCP."""
    with connected(topology.client, topology.server, SERVER4) as denied:
        assert present(node, cgroups.paths).changed
        denied.exchange()
        with connected(topology.client, topology.server, SERVER4, seed=2) as connection:
            assert_redirected(node, topology, connection)
    assert table.read(Places.of(node.paths).maps) == ()


def test_a_new_rule_for_what_only_one_end_sees(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        behind_a_service(own_cgroups) as (topology, listener),
        open_connection(topology.client, listener, SERVICE4) as connection,
    ):
        assert_redirected(own_node, topology, connection)
        deny(own_node, own_cgroups, SERVICE4)
        assert_by_tcp(own_node, topology, connection)
        await_plain(own_node, connection, left=0)


def test_a_rule_for_a_client_that_has_not_sent_yet(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """It does not know its peer, but is known to it."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        deny(own_node, own_cgroups, "127.0.0.0/8")
        connection.server.send(1000)
        connection.client.receive(1000)
        assert_by_tcp(own_node, topology, connection)


@pytest.mark.timeout(120)
def test_rules_come_and_go_under_checked_load(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """Long streams and short connections, each byte checked; the rule is for the load's own address."""
    with one_pod(own_cgroups) as topology, running_load(topology, own_cgroups) as load:
        for _ in range(RULE_CHANGES):
            deny(own_node, own_cgroups, "127.0.0.0/8", "::1")
            load.await_round()
            assert present(own_node, own_cgroups.paths).changed
            load.await_round()


# ---- the table is part of the state ----


def test_the_table_is_observed_planned_and_removed_as_all_else(own_cgroups: Cgroups) -> None:
    networks = ["10.0.0.0/8", {"network": "fd00::/8", "ports": [80, "8000-8100"]}]
    wish = {"state": "present", "cgroups": own_cgroups.paths, "denied_networks": networks}
    with installation() as node:
        present(node, own_cgroups.paths)
        promised = node.converge(node.parse(wish), check_mode=True)
        assert node.status()["denied_networks"] == promised.before["denied_networks"] == []
        assert promised.after["denied_networks"] == ["10.0.0.0/8", "fd00::/8 ports 80, 8000-8100"]
        assert [action.kind for action in promised.actions] == ["sockops.deny_networks", "file.write"]
        assert node.converge(node.parse(wish)).after == promised.after
        assert node.status()["denied_networks"] == promised.after["denied_networks"]
        assert not node.converge(node.parse(wish)).changed
        table.write(Places.of(node.paths).maps, ())
        assert [action.kind for action in node.converge(node.parse(wish)).actions] == [
            "sockops.deny_networks"
        ]
        assert not node.restore().changed
        assert present(node, own_cgroups.paths, denied_networks=networks, maximum_connections=99).changed
        assert node.status()["denied_networks"] == promised.after["denied_networks"]
        assert absent(node).changed


def test_some_thousand_networks_are_written_and_observed(own_cgroups: Cgroups) -> None:
    networks = [f"10.{high}.{low}.0/24" for high in range(16) for low in range(1, 255, 2)]
    with installation() as node:
        deny(node, own_cgroups, *networks)
        assert len(node.status()["denied_networks"]) == len(networks)
        assert not present(node, own_cgroups.paths, denied_networks=networks).changed
        deny(node, own_cgroups, *networks[:10])
        assert node.status()["denied_networks"] == sorted(networks[:10])


# ---- nftables sets ----


@contextlib.contextmanager
def host_with_sets() -> Iterator[NetworkNamespace]:
    """A network namespace for the test's own nft sets; what runs in here sees no others."""
    with NetworkNamespace("host") as namespace, network_namespaces.entered(str(namespace.path)):
        define(
            namespace,
            "table inet filter { set blocked { type ipv4_addr; flags interval; }; "
            "set pairs { type ipv6_addr . inet_service; }; set marks { type mark; }; }",
        )
        yield namespace


def define(namespace: NetworkNamespace, words: str) -> None:
    namespace.run(["nft", "-f", "-"], standard_input=words + "\n")


def test_the_elements_of_nft_sets_are_denied(own_node: Sockops, own_cgroups: Cgroups) -> None:
    sets = [{"family": "inet", "table": "filter", "set": name} for name in ("blocked", "pairs")]
    with two_pods(own_cgroups) as topology, topology.server.listen("::", PORT) as listener:
        with host_with_sets() as host:
            present(own_node, own_cgroups.paths, denied_nft_sets=sets)
            assert own_node.status()["denied_networks"] == []
            with open_connection(topology.client, listener, SERVER4) as connection:
                assert_redirected(own_node, topology, connection)
                define(host, "add element inet filter blocked { 10.77.0.1-10.77.0.3, 192.168.0.0/16 }")
                define(host, f"add element inet filter pairs {{ {SERVER6} . {PORT} }}")
                assert present(own_node, own_cgroups.paths, denied_nft_sets=sets).changed
                assert_by_tcp(own_node, topology, connection)
            assert not present(own_node, own_cgroups.paths, denied_nft_sets=sets).changed
        assert own_node.status()["denied_networks"] == [
            "10.77.0.1/32",
            "10.77.0.2/31",
            "192.168.0.0/16",
            f"{SERVER6}/128 ports {PORT}",
        ]
        with open_connection(topology.client, listener, SERVER6) as connection:
            assert_by_tcp(own_node, topology, connection)


@pytest.mark.parametrize(
    ("name", "words"), [("nowhere", "No such file or directory"), ("marks", "the type mark")]
)
def test_a_set_that_cannot_be_read_stops_the_run_and_what_was_denied_stays_so(
    own_node: Sockops, own_cgroups: Cgroups, name: str, words: str
) -> None:
    deny(own_node, own_cgroups, "10.0.0.0/8")
    sets = [{"family": "inet", "table": "filter", "set": name}]
    with host_with_sets(), pytest.raises(InvalidInput, match=words):
        present(own_node, own_cgroups.paths, denied_nft_sets=sets)
    assert own_node.status()["denied_networks"] == ["10.0.0.0/8"]


# ---- a rule of the firewall, and the cgroup revoked ----


NFT_CHAIN = f"chain input {{ type filter hook input priority 0; tcp dport {PORT} drop; }}"
#: By tool: how a rule is added, and how it is lifted.
RULES = {
    "nft": (f"nft add table inet later {{ {NFT_CHAIN}; }}", "nft delete table inet later"),
    "iptables": tuple(f"iptables -w -{verb} INPUT -p tcp --dport {PORT} -j DROP" for verb in "AD"),
}


@pytest.mark.parametrize("tool", sorted(RULES))
def test_a_revoked_cgroup_is_under_the_firewall_again(
    own_node: Sockops, own_cgroups: Cgroups, tool: str
) -> None:
    """A rule that is added later does not stop redirected bytes; switching the cgroup off does."""
    add_rule, lift_rule = RULES[tool]
    cgroup = own_cgroups.server.relative_path
    with one_pod(own_cgroups) as topology, topology.server.listen("127.0.0.1", PORT) as listener:
        with open_connection(topology.client, listener, "127.0.0.1") as connection:
            assert_redirected(own_node, topology, connection)
            topology.server.namespace.run(add_rule.split())
            assert_redirected(own_node, topology, connection)
            own_node.switch(Mode.OFF, cgroup)
            connection.client.send(QUEUED_BYTES)
            time.sleep(ARRIVAL_SECONDS)
            connection.server.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.server.socket.recv(1)
            connection.server.socket.setblocking(True)
            assert own_node.release() == ()
            assert own_node.live_sockets() == 0
            own_node.switch(Mode.ON, cgroup)
            topology.server.namespace.run(lift_rule.split())
            connection.server.receive(QUEUED_BYTES)
            assert_by_tcp(own_node, topology, connection)
        with open_connection(topology.client, listener, "127.0.0.1") as connection:
            assert_redirected(own_node, topology, connection)
