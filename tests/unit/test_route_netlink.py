"""Devices and routes as the kernel tells them; the samples were recorded on Debian's Linux 6.1."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.system import netlink, route_netlink
from meshaccel.system.netlink import Message
from meshaccel.system.route_netlink import Link, Route

RECORDED = Path(__file__).with_name("recorded") / "route-netlink.json"
ETHERNET = 1
TUNNEL = 768
NO_HEADER = 65534


@pytest.fixture(scope="module")
def links() -> dict[str, Link]:
    recorded = json.loads(RECORDED.read_text(encoding="ascii"))
    parsed = route_netlink.parse_links(
        map(bytes.fromhex, recorded["links"]), map(bytes.fromhex, recorded["addresses"])
    )
    return {link.name: link for link in parsed}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lo", Link(1, "lo", 772, "", 0, "", 65536, up=True, addresses=())),
        ("br0", Link(4, "br0", ETHERNET, "bridge", 0, "", 1500, up=False, addresses=())),
        ("v0", Link(6, "v0", ETHERNET, "veth", 4, "bridge", 1500, up=True, addresses=())),
        ("v1", Link(5, "v1", ETHERNET, "veth", 19, "vrf", 1500, up=True, addresses=())),
        # Its deprecated fd06::1 is not sent from.
        (
            "v1.7",
            Link(
                7, "v1.7", ETHERNET, "vlan", 0, "", 1500, up=True,
                addresses=("10.5.0.1", "10.5.0.2", "fd05::1"),
            ),
        ),
        # Its peer has 10.6.0.2.
        ("ipip1", Link(9, "ipip1", TUNNEL, "ipip", 0, "", 1480, up=True, addresses=("10.6.0.1",))),
        ("wg0", Link(16, "wg0", NO_HEADER, "wireguard", 0, "", 1420, up=False, addresses=())),
    ],
)  # fmt: skip
def test_devices(links: dict[str, Link], name: str, expected: Link) -> None:
    assert links[name] == expected


def test_devices_are_sorted_and_each_is_there_once(links: dict[str, Link]) -> None:
    assert [link.index for link in links.values()] == [1, 4, 5, 6, 7, 9, 16, 19]


def answer(kind: int, **attributes: bytes) -> bytes:
    numbers = {"device": 4, "gateway": 5, "source": 7, "via": 18}
    header = route_netlink.ROUTE_MESSAGE.pack(2, 32, 0, 0, 254, 0, 0, kind, 0)
    return header + b"".join(netlink.attribute(numbers[name], value) for name, value in attributes.items())


INDEX = struct.pack("=I", 3)
SOURCE = bytes((10, 0, 0, 1))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(answer(1, device=INDEX, source=SOURCE), Route(3, "", "10.0.0.1"), id="on-link"),
        pytest.param(
            answer(1, device=INDEX, gateway=bytes((10, 0, 0, 2)), source=SOURCE),
            Route(3, "10.0.0.2", "10.0.0.1"),
            id="gateway",
        ),
        pytest.param(
            answer(1, device=INDEX, via=struct.pack("=H", 10) + bytes(15) + b"\1", source=SOURCE),
            Route(3, "::1", "10.0.0.1"),
            id="gateway-of-the-other-version",
        ),
        pytest.param(answer(1, device=INDEX), Route(3, "", "192.0.2.1"), id="source-as-asked"),
        pytest.param(answer(2, device=INDEX, source=SOURCE), Route(3, "", "10.0.0.1", True), id="local"),
        pytest.param(answer(3, device=INDEX, source=SOURCE), None, id="broadcast"),
        pytest.param(answer(6), None, id="blackhole"),
    ],
)
def test_answers_to_the_question_for_a_route(payload: bytes, expected: Route | None) -> None:
    assert route_netlink.parse_route(payload, "192.0.2.1") == expected


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=9)), unique_by=lambda pair: pair[0]))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == dict(pairs)


@given(st.lists(st.binary(max_size=9), max_size=5), st.binary(max_size=40))
def test_whatever_arrives_is_taken_apart_to_its_end(payloads: list[bytes], rubbish: bytes) -> None:
    rows = [
        netlink.HEADER.pack(netlink.HEADER.size + len(payload), 16, 0, 5, 0)
        + payload.ljust(netlink.aligned(len(payload)), b"\0")
        for payload in payloads
    ]
    assert list(netlink.parse(b"".join(rows))) == [(5, Message(16, 0, payload)) for payload in payloads]
    for _ in netlink.parse(rubbish):
        pass
    netlink.attributes(rubbish)


def test_an_error_has_its_number_and_the_kernel_s_words() -> None:
    """With the request repeated in it, or left out (NETLINK_CAP_ACK)."""
    header = netlink.HEADER.pack(netlink.HEADER.size + 8, 16, 0, 1, 0)
    words = netlink.attribute(netlink.ERROR_TEXT, b"no such thing\0")
    code = netlink.CODE.pack(-2)
    for flags, repeated in ((netlink.HAS_ATTRIBUTES, header + bytes(8)),
                            (netlink.HAS_ATTRIBUTES | netlink.CAPPED, header)):  # fmt: skip
        message = Message(netlink.ERROR, flags, code + repeated + words)
        with pytest.raises(FileNotFoundError, match="No such file or directory: no such thing"):
            netlink.raise_error(message)
    netlink.raise_error(Message(netlink.ERROR, 0, netlink.CODE.pack(0) + header))
    netlink.raise_error(Message(netlink.DONE, 0, b""))
