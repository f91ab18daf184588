"""Wishes for relays: what is taken, and what is refused with which words."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.sockops.desired import load_document, parse
from meshaccel.accelerators.sockops.relays.desired import (
    MOST_RELAYS,
    Address,
    Relay,
    parse_address,
    parse_relays,
)
from meshaccel.errors import InvalidInput
from meshaccel.system.cgroups import Hierarchy

if TYPE_CHECKING:
    from meshaccel.model import Json

HIERARCHY = Hierarchy("/cgroup")
RELAY = {"from": "127.0.0.1:1234", "to": "127.0.0.1:4321"}

ports = st.integers(1, 65535)
hosts4 = st.ip_addresses(v=4).filter(lambda host: 0 < host.packed[0] < 224)
hosts6 = st.ip_addresses(v=6).filter(lambda host: host.packed[0] != 0xFF and int(host) >> 48 != 0)


def relays(*entries: Json) -> tuple[Relay, ...]:
    return parse_relays(list(entries), any_cgroup=True)


@given(hosts4, ports)
def test_an_ipv4_address_is_kept_v4_mapped_and_written_as_given(
    host: ipaddress.IPv4Address, port: int
) -> None:
    address = parse_address(f"{host}:{port}")
    assert address == Address(ipaddress.IPv6Address(f"::ffff:{host}").packed, port)
    assert str(address) == f"{host}:{port}"


@given(hosts6, ports)
def test_an_ipv6_address_stands_in_brackets(host: ipaddress.IPv6Address, port: int) -> None:
    address = parse_address(f"[{host}]:{port}")
    assert address == Address(host.packed, port)
    assert parse_address(str(address)) == address


def test_an_address_has_one_spelling() -> None:
    assert parse_address("[0:0::0:1]:80") == parse_address("[::1]:80")
    assert parse_address("[::ffff:10.0.0.1]:80") == parse_address("10.0.0.1:80")
    assert str(parse_address("[::ffff:10.0.0.1]:80")) == "10.0.0.1:80"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1", "an address with a port"),
        ("127.0.0.1:", "an address with a port"),
        ("127.0.0.1:http", "an address with a port"),
        ("127.0.0.1:+80", "an address with a port"),
        ("127.0.0.1:٨٠", "an address with a port"),
        ("127.0.0.1:000080", "an address with a port"),
        ("127.0.0.1:-1", "an address with a port"),
        ("127.0.0.1:0", "a port from 1 to 65535"),
        ("127.0.0.1:65536", "a port from 1 to 65535"),
        ("localhost:80", "an IPv4 address, or an IPv6 address in brackets"),
        ("127.1:80", "an IPv4 address"),
        ("127.0.0.256:80", "an IPv4 address"),
        ("::1:80", "an IPv4 address"),
        ("[::1:80", "an IPv4 address"),
        ("[127.0.0.1]:80", "an IPv4 address"),
        ("[fe80::1%eth0]:80", "an IPv4 address"),
        ("127.0.0.1\0:80", "an IPv4 address"),
        (":80", "an IPv4 address"),
        ("0.0.0.0:80", "no single host's"),
        ("[::]:80", "no single host's"),
        ("[::ffff:0.0.0.0]:80", "no single host's"),
        ("224.0.0.1:80", "no single host's"),
        ("255.255.255.255:80", "no single host's"),
        ("[ff02::1]:80", "no single host's"),
        (1234, "an address with a port, as text"),
        (None, "an address with a port, as text"),
    ],
)
def test_what_is_no_server_s_address_is_refused(text: Json, found: str) -> None:
    with pytest.raises(InvalidInput, match=found):
        parse_address(text)


@pytest.mark.parametrize(
    "entry",
    [
        "127.0.0.1:1234",
        {},
        {"from": "127.0.0.1:1234"},
        {**RELAY, "mode": "on"},
        ["127.0.0.1:1234", "127.0.0.1:4321"],
        None,
    ],
)
def test_a_relay_is_from_and_to(entry: Json) -> None:
    with pytest.raises(InvalidInput, match="a relay as exactly from and to"):
        relays(entry)


@pytest.mark.parametrize("entries", ["127.0.0.1:1234", RELAY, 5, True])
def test_relays_are_a_list(entries: Json) -> None:
    with pytest.raises(InvalidInput, match="a list for sockops_relays"):
        parse_relays(entries, any_cgroup=True)


@pytest.mark.parametrize(
    "entries",
    [
        [{"from": "127.0.0.1:1", "to": "127.0.0.1:1"}],
        [RELAY, RELAY],
        [RELAY, {"from": "127.0.0.1:1", "to": "127.0.0.1:1234"}],
        [RELAY, {"from": "[::ffff:127.0.0.1]:4321", "to": "127.0.0.1:1"}],
    ],
)
def test_a_server_is_on_one_side_of_one_relay(entries: list[dict[str, str]]) -> None:
    with pytest.raises(InvalidInput, match="each server in one relay"):
        relays(*entries)


def numbered(count: int) -> list[dict[str, str]]:
    return [{"from": f"127.0.0.1:{2 * n + 1}", "to": f"127.0.0.1:{2 * n + 2}"} for n in range(count)]


def test_there_are_so_many_relays_and_no_more() -> None:
    assert len(relays(*numbered(MOST_RELAYS))) == MOST_RELAYS
    with pytest.raises(InvalidInput, match=f"at most {MOST_RELAYS} relays"):
        relays(*numbered(MOST_RELAYS + 1))


def test_none_is_no_relay() -> None:
    assert parse_relays(None, any_cgroup=False) == parse_relays([], any_cgroup=False) == ()


def test_relays_need_a_cgroup_unless_everything_goes() -> None:
    with pytest.raises(InvalidInput, match="sockops_cgroups"):
        parse({"relays": [RELAY]}, HIERARCHY)
    assert parse({"relays": [RELAY], "state": "absent"}, HIERARCHY).present is False


def test_the_kept_document_brings_relays_back() -> None:
    desired = parse({"cgroups": ["a"], "relays": [RELAY, {"from": "[::1]:5", "to": "10.0.0.1:6"}]}, HIERARCHY)
    assert load_document(desired.document(), "here") == desired
    assert desired.relays[0].as_dict() == RELAY
