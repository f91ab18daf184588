"""Devices, addresses and routes of a namespace, as ip(8) made them."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from meshaccel.system import network_namespaces, route_netlink
from meshaccel.system.route_netlink import Link, Route
from tests.support.namespaces import Attachment, NetworkNamespace, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESSES = ("10.98.0.1/24", "10.98.0.3/24", "fd98::1/64")
ETHERNET = 1
LOOPBACK = 772
#: Longer than any event takes to come.
SECONDS = 10.0


@pytest.fixture(scope="module")
def node() -> Iterator[NetworkNamespace]:
    """A namespace with a wire, and a bridge with a port; the test's thread works in it."""
    with NetworkNamespace("node") as node, NetworkNamespace("peer") as peer:
        connect(Attachment(node, "wire", ADDRESSES), Attachment(peer, "end"))
        node.run(["ip", "link", "add", "bridge0", "mtu", "1400", "type", "bridge"])
        node.run(["ip", "link", "add", "port", "master", "bridge0", "type", "veth", "peer", "name", "pod"])
        node.run(["ip", "route", "add", "10.97.0.0/16", "via", "10.98.0.2"])
        node.run(["ip", "route", "add", "fd97::/64", "via", "fd98::2"])
        node.run(["ip", "route", "add", "10.96.0.0/16", "via", "inet6", "fd98::2", "dev", "wire"])
        node.run(["ip", "link", "set", "bridge0", "up"])
        node.run(["ip", "address", "add", "10.91.0.1/24", "dev", "bridge0"])
        node.run(["ip", "address", "add", "fd91::1/64", "dev", "bridge0", "nodad"])
        for network, *gateways in (
            ("10.92.0.0/16", "10.98.0.2", "10.91.0.2"),
            ("fd92::/64", "fd98::2", "fd91::2"),
        ):
            hops = [word for gateway in gateways for word in ("nexthop", "via", gateway)]
            node.run(["ip", "route", "add", network, *hops])
        node.run(["ip", "route", "add", "prohibit", "10.95.0.0/16"])
        node.run(["ip", "route", "add", "unreachable", "10.94.0.0/16"])
        with network_namespaces.entered(str(node.path)):
            yield node


def link(name: str) -> Link:
    (found,) = [each for each in route_netlink.links() if each.name == name]
    return found


def test_devices_are_as_ip_shows_them(node: NetworkNamespace) -> None:
    shown = json.loads(node.run(["ip", "-j", "-d", "link"]))
    assert {(each["ifindex"], each["ifname"], each["mtu"]) for each in shown} == {
        (each.index, each.name, each.mtu) for each in route_netlink.links()
    }
    by_name = {each["ifname"]: each.get("linkinfo", {}).get("info_kind", "") for each in shown}
    assert {each.name: each.kind for each in route_netlink.links()} == by_name


def test_a_device_its_addresses_and_whether_it_is_up(node: NetworkNamespace) -> None:
    del node
    wire = link("wire")
    assert (wire.hardware_type, wire.kind, wire.up, wire.master_index) == (ETHERNET, "veth", True, 0)
    # Without the link-local one.
    assert wire.addresses == ("10.98.0.1", "10.98.0.3", "fd98::1")
    assert (link("lo").hardware_type, link("lo").addresses) == (LOOPBACK, ())
    assert (link("bridge0").kind, link("pod").up) == ("bridge", False)


def test_a_port_of_a_bridge(node: NetworkNamespace) -> None:
    del node
    port, bridge = link("port"), link("bridge0")
    assert (port.master_index, port.master_kind) == (bridge.index, "bridge")


def test_routes(node: NetworkNamespace) -> None:
    del node
    wire = socket.if_nametoindex("wire")
    loopback = socket.if_nametoindex("lo")
    expected = {
        "10.98.0.7": Route(wire, "", "10.98.0.1"),
        "10.97.1.1": Route(wire, "10.98.0.2", "10.98.0.1"),
        "10.96.1.1": Route(wire, "fd98::2", "10.98.0.1"),
        "fd98::7": Route(wire, "", "fd98::1"),
        "fd97::7": Route(wire, "fd98::2", "fd98::1"),
        "10.98.0.1": Route(loopback, "", "10.98.0.1", local=True),
        "fd98::1": Route(loopback, "", "fd98::1", local=True),
        "10.95.0.1": None,
        "10.94.0.1": None,
        "192.0.2.1": None,
        "2001:db8::1": None,
        "10.98.0.255": None,
    }
    assert route_netlink.routes(expected) == expected
    assert route_netlink.route("10.97.1.1", "10.98.0.3") == Route(wire, "10.98.0.2", "10.98.0.3")


@pytest.mark.parametrize("network", ["10.92.1.", "fd92::"])
def test_a_route_with_several_gateways(node: NetworkNamespace, network: str) -> None:
    del node
    devices = {socket.if_nametoindex("wire"), socket.if_nametoindex("bridge0")}
    found = route_netlink.routes(f"{network}{number}" for number in range(1, 40))
    taken = {each.device_index for each in found.values() if each is not None}
    assert taken == devices
    for each in found.values():
        assert each is not None
        assert {each.device_index, *each.other_devices} == devices


@pytest.mark.parametrize(
    "change",
    [
        ["link", "set", "port", "up"],
        ["address", "add", "10.90.0.1/24", "dev", "pod"],
        ["address", "add", "fd90::1/64", "dev", "pod", "nodad"],
        ["route", "add", "10.89.0.0/16", "via", "10.98.0.2"],
        ["route", "add", "fd89::/64", "via", "fd98::2"],
        ["rule", "add", "from", "10.1.1.1", "lookup", "100"],
        ["-6", "rule", "add", "from", "fd88::1", "lookup", "100"],
        ["link", "del", "port"],
    ],
    ids=" ".join,
)
def test_a_change_is_an_event(node: NetworkNamespace, change: list[str]) -> None:
    with route_netlink.Events() as events:
        assert not events.wait(0)
        node.run(["ip", *change])
        assert events.wait(SECONDS)
