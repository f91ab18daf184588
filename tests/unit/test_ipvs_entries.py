"""The entries of ipvs_services: what they may say, and that every mistake is told at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.errors import InvalidInput
from meshaccel.ipvs.desired import Desired, parse
from meshaccel.ipvs.document import Kept, read_kept, read_wish, write
from meshaccel.ipvs.entries import Mistakes, parse_services, service_entry
from meshaccel.ipvs.model import AddressKey, MarkKey, RealServer, VirtualService

WEB: dict[str, Any] = {"address": "10.0.0.1", "port": 80}
TUNNEL = {"address": "10.1.0.1", "forwarding": "tunnel"}


def one(**more: object) -> VirtualService:
    """Parse one service."""
    (service,) = parse_services([{**WEB, **more}])
    return service


def server(entry: object, **more: object) -> RealServer:
    """Parse one server of a service."""
    (parsed,) = one(servers=[entry], **more).servers
    return parsed


# ---- what they may say ----


def test_what_is_not_said_has_defaults() -> None:
    assert one() == VirtualService("tcp", "10.0.0.1", 80, None, "ipv4", "wlc")
    assert server("10.1.0.1") == RealServer("10.1.0.1", 80, "masquerade", 1, 0, 0)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"address": "10.0.0.1", "port": "80"}, AddressKey("tcp", "10.0.0.1", 80)),
        ({"address": "FD00:0::1", "port": 53, "protocol": "udp"}, AddressKey("udp", "fd00::1", 53)),
        ({"address": "10.0.0.1", "port": 0, "persistence_timeout": 9}, AddressKey("tcp", "10.0.0.1", 0)),
        ({"firewall_mark": 4294967295}, MarkKey("ipv4", 4294967295)),
        ({"firewall_mark": 1, "family": "ipv6"}, MarkKey("ipv6", 1)),
    ],
)
def test_a_service_is_known_by_its_canonical_address_or_mark(
    entry: dict[str, object], key: AddressKey | MarkKey
) -> None:
    (service,) = parse_services([entry])
    assert service.key == key


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("10.1.0.1:8080", RealServer("10.1.0.1", 8080)),
        ({"address": "10.1.0.1", "weight": "0"}, RealServer("10.1.0.1", 80, weight=0)),
        (TUNNEL, RealServer("10.1.0.1", 80, "tunnel", 1, 0, 0, "ipip", 0, "none")),
        (
            {**TUNNEL, "tunnel_type": "gue", "tunnel_port": 6080, "tunnel_checksum": "remote"},
            RealServer("10.1.0.1", 80, "tunnel", 1, 0, 0, "gue", 6080, "remote"),
        ),
        ({**TUNNEL, "address": "fd00::1"}, RealServer("fd00::1", 80, "tunnel", 1, 0, 0, "ipip", 0, "none")),
    ],
)
def test_a_server_is_text_or_a_dictionary(entry: object, expected: RealServer) -> None:
    assert server(entry) == expected


def test_a_server_of_ipv6_is_written_with_or_without_a_port() -> None:
    assert server("[fd00::2]:8080", address="fd00::1") == RealServer("fd00::2", 8080)
    assert server("fd00::2", address="fd00::1") == RealServer("fd00::2", 80)


@pytest.mark.parametrize(
    ("address", "netmask", "expected"),
    [
        ("10.0.0.1", None, "255.255.255.255"),
        ("10.0.0.1", 24, "255.255.255.0"),
        ("10.0.0.1", "255.255.0.0", "255.255.0.0"),
        ("fd00::1", None, "128"),
        ("fd00::1", 64, "64"),
    ],
)
def test_netmasks_are_as_the_kernel_has_them(address: str, netmask: object, expected: str) -> None:
    service = one(address=address, persistence_timeout=60, persistence_netmask=netmask)
    assert service.persistence_netmask == expected


# ---- what they may not say ----


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("10.0.0.1:80", "wanted a service as a dictionary; found '10.0.0.1:80'"),
        ({**WEB, "adress": 1}, "found adress; check the spelling"),
        ({"port": 80}, "wanted an address of IPv4 or IPv6 as address of a service; found None"),
        ({**WEB, "address": "web.example"}, "found 'web.example'; names are not looked up"),
        ({**WEB, "address": "224.0.0.1"}, "'224.0.0.1', which is multicast"),
        ({**WEB, "address": "::ffff:10.0.0.1"}, "link-local or mapped"),
        ({"address": "10.0.0.1"}, "wanted a port from 0 to 65535; found None"),
        ({**WEB, "port": 65536}, "found 65536"),
        ({**WEB, "port": True}, "found True"),
        ({**WEB, "port": 0}, "wanted a persistence_timeout with port 0"),
        ({**WEB, "protocol": "icmp"}, "wanted a protocol of tcp, udp, sctp; found 'icmp'"),
        ({**WEB, "scheduler": "../rr"}, "wanted the name of a scheduler; found '../rr'"),
        ({**WEB, "family": "ipv4"}, "wanted a family with a firewall_mark alone"),
        ({**WEB, "firewall_mark": 1}, "found a firewall_mark and address, port"),
        ({"firewall_mark": 0}, "wanted a firewall_mark from 1 to 4294967295; found 0"),
        ({**WEB, "flags": "sh-port"}, "wanted flags as a list"),
        ({**WEB, "flags": ["sh-port"]}, "wanted flags with the scheduler wlc of ops; found 'sh-port'"),
        ({**WEB, "flags": ["ops"]}, "wanted protocol udp for the flag ops"),
        ({**WEB, "persistence_netmask": 24}, "wanted a persistence_timeout with what else is said"),
        ({**WEB, "persistence_timeout": 60, "persistence_netmask": "24.x"}, "wanted a netmask"),
        ({**WEB, "persistence_timeout": 60, "persistence_netmask": 33}, "from 1 to 32; found 33"),
        ({**WEB, "persistence_timeout": 60, "persistence_engine": "sip"}, "wanted protocol udp"),
        ({**WEB, "servers": "10.1.0.1"}, "wanted servers as a list"),
    ],
)
def test_a_wrong_service_is_refused_with_what_is_wrong(entry: object, words: str) -> None:
    with pytest.raises(Mistakes) as caught:
        parse_services([WEB, entry] if entry != WEB else [entry])
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("ipvs_services[1]: wanted ")
    assert words in mistake


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (5, "wanted a server as text or a dictionary; found 5"),
        ("10.1.0.1:http", "wanted a port from 0 to 65535; found 'http'"),
        ("10.1.0", "found '10.1.0'"),
        ("10.1.0.1:80\n", "found '80\\n'"),
        ("fd00::1", "wanted an ipv4 server; found fd00::1"),
        ("fe80::1", "link-local"),
        ({"address": "10.1.0.1", "weigth": 1}, "found weigth; check the spelling"),
        ({"address": "10.1.0.1", "weight": -1}, "wanted a weight from 0 to 65535; found -1"),
        ({"address": "10.1.0.1", "forwarding": "nat"}, "wanted forwarding of masquerade, tunnel, direct"),
        ({"address": "10.1.0.1", "lower_threshold": 5}, "found 5 above 0"),
        ({"address": "10.1.0.1", "port": 81, "forwarding": "direct_routing"}, "wanted port 80, which"),
        ({"address": "10.1.0.1", "tunnel_type": "gre"}, "wanted forwarding tunnel"),
        ({**TUNNEL, "tunnel_type": "vxlan"}, "wanted a tunnel_type of ipip, gue, gre"),
        ({**TUNNEL, "tunnel_type": "gue"}, "wanted a tunnel_port with tunnel_type gue"),
        ({**TUNNEL, "tunnel_port": 6080}, "wanted a tunnel_port with tunnel_type gue alone"),
        ({**TUNNEL, "tunnel_checksum": "full"}, "wanted a tunnel_checksum with ipip of none; found 'full'"),
    ],
)
def test_a_wrong_server_is_refused_with_what_is_wrong(entry: object, words: str) -> None:
    with pytest.raises(Mistakes) as caught:
        one(servers=["10.1.0.9", entry])
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("ipvs_services[0].servers[1]: wanted ")
    assert words in mistake


def test_a_hundred_bad_entries_are_a_hundred_mistakes_in_one_failure() -> None:
    entries = [{**WEB, "port": port} for port in range(1, 101)]
    for entry in entries[::2]:
        entry["protocol"] = "icmp"
    for entry in entries[1::2]:
        entry["servers"] = ["10.1.0.1", {"address": "10.1.0.2", "weight": "heavy"}]
    with pytest.raises(InvalidInput) as caught:
        parse({"services": [{"address": "10.0.0.2", "port": 1}, *entries]})
    lines = caught.value.found.splitlines()
    assert lines[0] == "100 with one, so nothing was changed:"
    assert lines[1] == "ipvs_services[1]: wanted a protocol of tcp, udp, sctp; found 'icmp'; correct it"
    assert lines[2] == (
        "ipvs_services[2].servers[1]: wanted a weight from 0 to 65535; found 'heavy'; correct it"
    )
    assert len(lines) == 101


def test_what_is_there_twice_is_told_with_both_places() -> None:
    with pytest.raises(Mistakes, match=r"ipvs_services\[1\].*tcp 10\.0\.0\.1:80, as in ipvs_services\[0\]"):
        parse_services([WEB, {**WEB, "scheduler": "rr"}])
    with pytest.raises(Mistakes, match=r"servers\[1\].*10\.1\.0\.1:80, as in servers\[0\]"):
        one(servers=["10.1.0.1", "10.1.0.1:80"])


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({"service": []}, "service"),
        ({"services": "10.0.0.1"}, "'10.0.0.1'"),
        ({"drain_seconds": 3601}, "3601"),
        ({"purge": "maybe"}, "'maybe'"),
        ({"state": "gone"}, "'gone'"),
    ],
)
def test_what_is_wrong_beside_the_services_is_told(raw: dict[str, object], found: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(raw)
    assert caught.value.found == found


# ---- kept ----

KEPT_SERVERS: list[Any] = [
    "10.1.0.1:1",
    {"address": "10.1.0.2", "weight": 2, "upper_threshold": 3},
    {**TUNNEL, "address": "10.1.0.3", "tunnel_type": "gre", "tunnel_checksum": "full"},
]
ENTRIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"address": st.ip_addresses(v=4, network="10.0.0.0/8").map(str), "port": st.integers(1, 65535)},
    optional={
        "protocol": st.sampled_from(["tcp", "udp", "sctp"]),
        "persistence_timeout": st.integers(1, 9),
        "servers": st.lists(st.sampled_from(KEPT_SERVERS), unique_by=str),
    },
)


@given(st.lists(ENTRIES, unique_by=lambda entry: entry["address"], max_size=4), st.booleans())
def test_a_wish_is_read_back_as_it_was_kept(entries: list[dict[str, object]], purge: bool) -> None:
    desired = parse({"services": entries, "purge": purge, "drain_seconds": 7})
    keys = [service.key for service in desired.services]
    content = write(desired, keys[:1], keys[1:2])
    assert read_wish(content, "the file") == desired
    kept = read_kept(content, "the file")
    assert (kept.listed, kept.adopted, kept.leaving) == tuple(map(frozenset, (keys, keys[:1], keys[1:2])))
    assert kept.detailed == {
        service.key
        for service in desired.services
        if any(server.upper_threshold for server in service.servers)
    }
    assert parse_services([service_entry(service) for service in desired.services]) == desired.services


def test_every_service_is_a_line_of_the_file() -> None:
    desired = Desired(True, parse_services([{**WEB, "scheduler": "rr"}, {"firewall_mark": 7}]))
    assert write(desired, (), ()).decode().splitlines()[6:] == [
        '"services": [',
        '{"protocol": "tcp", "address": "10.0.0.1", "port": 80, "scheduler": "rr", "servers": []},',
        '{"family": "ipv4", "firewall_mark": 7, "scheduler": "wlc", "servers": []}]',
        "}",
    ]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"services": [{}], "adopted": [], "leaving": []}']
)
def test_a_damaged_file_is_told_with_what_to_do(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="in the file which services of the node are ours"):
        read_kept(content, "the file")
    with pytest.raises(InvalidInput, match="remove the file and run the playbook"):
        read_wish(content, "the file")


def test_without_a_file_nothing_is_ours() -> None:
    assert Kept().ours == frozenset()
