"""Which devices and services of a node are taken, with which addresses, and why others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import (
    Masquerade,
    ProgramMode,
    packed,
    packed_network,
    unpacked,
    unpacked_network,
)
from meshaccel.accelerators.ipvs_bpf.masquerade import Decisions
from meshaccel.accelerators.ipvs_bpf.selection import select
from meshaccel.accelerators.ipvs_bpf.values import parse_address, parse_network
from meshaccel.errors import InvalidInput
from meshaccel.ipvs import applications
from meshaccel.ipvs.model import AddressKey, RealServer, VirtualService
from meshaccel.ipvs.timeouts import Timeouts
from meshaccel.model import Mode
from meshaccel.ports import PortRange
from meshaccel.system.route_netlink import Route
from tests.unit.ipvs_bpf_scenarios import (
    DNS,
    HERE,
    LINKS,
    ROUTES,
    SERVICES,
    UPLINK,
    WEB,
    around,
    link,
    resolved,
    wish,
)

if TYPE_CHECKING:
    from pathlib import Path

    from meshaccel.model import Json

PART_OF_BOND = "its packets are those of the bond that it is a part of"
TAKEN = {
    AddressKey("tcp", "10.96.0.1", 80),
    AddressKey("udp", "10.96.0.10", 53),
    AddressKey("tcp", "fd00::1", 80),
}


def test_devices_get_the_programs_that_suit_them_and_others_are_left_out_with_a_reason() -> None:
    found = resolved(wish(), around())
    assert {each.link.name: each.programs for each in found.devices} == {
        "eth0": ("meshaccel_ipvs_ingress", "meshaccel_ipvs_egress"),
        "cni0": ("meshaccel_ipvs_ingress", "meshaccel_ipvs_egress"),
        "veth1": ("meshaccel_ipvs_ingress", None),
        "wg0": ("meshaccel_ipvs_ingress_bare", "meshaccel_ipvs_egress_bare"),
    }
    assert found.left_out == {"lo": "it is the loopback device", "kube-ipvs0": "it leads nowhere"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"master_index": 7, "master_kind": "bond"},
            PART_OF_BOND,
        ),
        ({"hardware_type": 32}, "its hardware type is 32"),
        ({"kind": "ifb"}, "it shapes what others receive"),
    ],
)
def test_a_device_that_no_program_suits_keeps_its_services_native(changes: Json, reason: str) -> None:
    links = (*LINKS[:1], replace(UPLINK, **changes), *LINKS[2:])
    found = resolved(wish(), around(links))
    assert found.left_out["eth0"] == reason
    assert found.native["tcp [fd00::1]:80"] == "the way to 2001:db8::5 is eth0, which is left out"


def test_a_device_of_a_vrf_is_one_like_others() -> None:
    links = (*LINKS[:1], replace(UPLINK, master_index=7, master_kind="vrf"), *LINKS[2:])
    assert "eth0" in {each.link.name for each in resolved(wish(), around(links)).devices}


def test_patterns_choose_devices() -> None:
    found = resolved(wish(devices=["eth0", "cni*"]), around())
    assert [each.link.name for each in found.devices] == ["eth0", "cni0"]
    assert found.left_out["wg0"] == "no pattern of ipvs_bpf_devices matches its name"


def test_services_are_taken_whose_servers_can_all_be_reached() -> None:
    found = resolved(wish(masquerade="always"), around())
    assert found.services == dict.fromkeys(TAKEN, Masquerade.ALWAYS)
    assert found.native == {str(HERE): "192.0.2.1 is this node itself"}


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (
            WEB._replace(firewall_mark=7, protocol=None, address=None, port=None),
            "it is one of a firewall mark",
        ),
        (WEB._replace(protocol="sctp"), "its protocol is sctp"),
        (DNS._replace(flags=("ops",)), "IPVS schedules each of its packets (ops)"),
        (
            WEB._replace(servers=(*WEB.servers, RealServer("10.0.0.1", 80, "direct_routing"))),
            "forwarding by direct routing needs no conntrack",
        ),
        (WEB._replace(servers=(RealServer("10.0.0.1", 80),)), "no route leads to 10.0.0.1"),
    ],
)
def test_other_services_stay_native(service: VirtualService, reason: str) -> None:
    found = resolved(wish(), around(services=(service,)))
    assert (found.services, list(found.native.values())) == ({}, [reason])


def test_what_an_application_of_ipvs_takes_part_in_stays_native() -> None:
    listing = "prot port    usecnt name\nTCP  80      0      ftp              \n"
    found = resolved(wish(), around(applications=applications.parse(listing)))
    assert found.native[str(WEB)] == "IPVS changes the contents of its packets (ftp)"
    assert DNS.key in found.services


def test_without_applications_there_are_none(tmp_path: Path) -> None:
    assert applications.read(str(tmp_path / "ip_vs_app")) == {}


def test_of_a_route_with_several_gateways_each_device_counts() -> None:
    routes = {**ROUTES, "10.244.0.5": Route(2, "", "", other_devices=(1,))}
    found = resolved(wish(), replace(around(), routes=routes))
    assert found.native[str(WEB)] == "the way to 10.244.0.5 is lo, which is left out"


def test_a_device_without_an_address_is_no_way_for_what_is_masqueraded() -> None:
    bare = link(2, "eth0", "192.0.2.1")
    routes = {**ROUTES, "2001:db8::5": Route(2, "fe80::1", "")}
    surroundings = replace(around((*LINKS[:1], bare, *LINKS[2:])), routes=routes)
    assert (
        "has no IPv6 address to masquerade with" in resolved(wish(), surroundings).native["tcp [fd00::1]:80"]
    )
    assert AddressKey("tcp", "fd00::1", 80) in resolved(wish(masquerade="never"), surroundings).services


def test_a_device_without_an_address_takes_that_of_the_kernel_s_route() -> None:
    pod = link(9, "cali1", kind="veth")
    surroundings = replace(around((*LINKS, pod)), routes={"10.244.0.5": Route(9, "", "192.0.2.1")})
    source = resolved(
        wish(follow="none", services=[{"address": "10.96.0.1", "port": 80}]), surroundings
    ).sources[9]
    assert (str(source.ipv4), source.ipv6) == ("192.0.2.1", None)


def test_what_is_given_for_a_device_wins_over_its_own_address() -> None:
    given = {"eth*": {"ipv4": "192.0.2.7", "ports": "2000-3000"}, "*": {"ipv4": "192.0.2.8"}}
    sources = resolved(wish(source_addresses=given), around()).sources
    assert (str(sources[2].ipv4), str(sources[2].ipv6)) == ("192.0.2.7", "2001:db8::1")
    assert (sources[2].ports, sources[5].ports) == (PortRange(2000, 3000), PortRange(1024, 29999))
    assert str(sources[5].ipv4) == "192.0.2.8"


def test_ports_that_sockets_are_given_are_refused_with_an_address_that_they_have() -> None:
    surroundings = around(local_ports=PortRange(20000, 60999))
    with pytest.raises(InvalidInput, match=r"1024-29999 with 192.0.2.1 and 2001:db8::1, and .* 20000-60999"):
        resolved(wish(), surroundings)
    dedicated = {"*": {"ipv4": "192.0.2.7", "ipv6": "2001:db8::7"}}
    assert resolved(wish(source_addresses=dedicated), surroundings).services
    assert resolved(wish(source_addresses={"*": {"ports": "1024-19999"}}), surroundings).services
    assert not resolved(wish(mode="native"), surroundings).services


def test_what_is_listed_wins_over_what_is_followed_and_what_is_not_there_is_said() -> None:
    listed = [
        {"address": "10.96.0.1", "port": 80, "masquerade": "never"},
        {"address": "10.96.9.9", "port": 1},
    ]
    found = resolved(wish(services=listed, masquerade="always"), around())
    assert found.services[AddressKey("tcp", "10.96.0.1", 80)] is Masquerade.NEVER
    assert found.services[AddressKey("udp", "10.96.0.10", 53)] is Masquerade.ALWAYS
    assert found.native["tcp 10.96.9.9:1"] == "IPVS has no such service"
    alone = resolved(wish(follow="none", services=listed), around())
    assert set(alone.services) == {AddressKey("tcp", "10.96.0.1", 80)}
    assert alone.native[str(DNS)] == "it is not among ipvs_bpf_services"


def test_kube_proxy_s_decisions_are_taken_over() -> None:
    web, dns = AddressKey("tcp", "10.96.0.1", 80), AddressKey("udp", "10.96.0.10", 53)
    decisions = Decisions({web: Masquerade.REMOTE}, {dns: "a firewall"}, ("10.244.0.0/16",))
    found = select(wish(follow="kube_proxy"), SERVICES, decisions)
    assert [(service.key, masquerade) for service, masquerade in found.services] == [(web, Masquerade.REMOTE)]
    assert found.native["udp 10.96.0.10:53"] == "a firewall"
    assert found.native[str(HERE)] == "it is none of kube-proxy's"
    assert list(map(str, found.local_networks)) == ["10.244.0.0/16"]


@pytest.mark.parametrize(
    ("hold", "mode"),
    [(None, ProgramMode.ON), (Mode.OFF, ProgramMode.OFF), (Mode.DRAIN, ProgramMode.DRAIN)],
)
def test_a_hold_wins_over_the_wish(hold: Mode | None, mode: ProgramMode) -> None:
    assert resolved(wish(), around(), hold).mode is mode


@pytest.mark.parametrize(("udp", "seconds"), [(300, 30), (40, 10), (2, 1)])
def test_the_fast_path_refreshes_ipvs_s_entries_well_within_their_timeouts(udp: int, seconds: int) -> None:
    surroundings = around(timeouts=Timeouts(900, 120, udp))
    settings = resolved(wish(fast_path=True), surroundings).settings
    assert (settings.fast_path_seconds, settings.tcp_seconds, settings.udp_seconds) == (seconds, 900, udp)
    assert resolved(wish(), surroundings).settings.fast_path_seconds == 0


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.7/32", "0.0.0.0/0", "fd00::/48", "::/0"])
def test_networks_are_packed_and_unpacked(text: str) -> None:
    network = parse_network(text)
    assert unpacked_network(packed_network(network)) == network


@pytest.mark.parametrize("text", ["10.0.0.1", "2001:db8::1"])
def test_addresses_are_packed_and_unpacked(text: str) -> None:
    address = parse_address(text, "it")
    assert unpacked(packed(address)) == address
    assert unpacked(packed(None)) is None
