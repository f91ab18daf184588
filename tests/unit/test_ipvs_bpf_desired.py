"""What an operator may wish of ipvs_bpf, what is refused, and that all that is wrong is told at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.ipvs_bpf.desired import Desired, Follow, load_document, parse
from meshaccel.accelerators.ipvs_bpf.layout import Masquerade
from meshaccel.errors import InvalidInput
from meshaccel.ports import PortRange

if TYPE_CHECKING:
    from meshaccel.model import Json

SERVICE = {"address": "10.96.0.1", "port": 80}
EVERYTHING = {
    "state": "present",
    "mode": "bpf",
    "fast_path": True,
    "services": [
        {**SERVICE, "protocol": "udp", "masquerade": "never"},
        {"address": "fd00::1", "port": "443"},
    ],
    "follow": "kube_proxy",
    "masquerade": "always",
    "local_networks": ["10.244.0.0/16", "fd00::/48"],
    "masquerade_all": False,
    "devices": ["eth*", "cali*"],
    "source_addresses": {"eth0": {"ipv4": "192.0.2.7", "ipv6": "2001:db8::7", "ports": "1024-65535"}},
    "mark_bits": ["0x20000", 65536],
    "mark_accepted": "0x400",
    "maximum_sessions": 1000,
    "observe_seconds": 5,
    "drain_seconds": 0,
    "kernel_settings": {"net.ipv4.vs.run_estimation": 0, "conn_reuse_mode": None},
    "tencent_reload": True,
}


def test_nothing_wished_is_native_with_the_defaults_of_the_role() -> None:
    assert parse({}) == Desired()
    assert parse(dict.fromkeys(EVERYTHING)) == Desired()
    assert not Desired().bpf


def test_every_variable_is_understood() -> None:
    desired = parse(EVERYTHING)
    assert [str(wish) for wish in desired.services] == ["udp 10.96.0.1:80", "tcp [fd00::1]:443"]
    assert [wish.masquerade for wish in desired.services] == [Masquerade.NEVER, Masquerade.REMOTE]
    assert desired.follow is Follow.KUBE_PROXY
    assert (desired.mark_bits, desired.mark_accepted) == ((0x10000, 0x20000), 0x400)
    (source,) = desired.source_addresses
    assert (str(source.ipv4), str(source.ipv6), source.ports) == (
        "192.0.2.7",
        "2001:db8::7",
        PortRange(1024, 65535),
    )
    assert source.matches("eth0")
    assert not source.matches("eth00")
    assert desired.kernel_settings == (
        ("net.ipv4.vs.conn_reuse_mode", None),
        ("net.ipv4.vs.run_estimation", "0"),
    )


@pytest.mark.parametrize("raw", [{}, EVERYTHING, {"state": "absent"}], ids=["default", "all", "absent"])
def test_the_wish_that_is_kept_reads_back_the_same(raw: dict[str, Json]) -> None:
    desired = parse(raw)
    assert load_document(desired.document(), "here") == desired
    assert parse(desired.as_dict()) == desired


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"mode": "on"}, "mode to be one of native, bpf"),
        ({"devices": "eth0"}, "a list for ipvs_bpf_devices"),
        ({"devices": ["a/b"]}, "ipvs_bpf_devices, entry 1: wanted the name of a device"),
        ({"services": [{"port": 80}]}, "ipvs_bpf_services, entry 1: wanted the address of a service"),
        ({"services": [{**SERVICE, "address": "224.0.0.1"}]}, "multicast"),
        ({"services": [{**SERVICE, "address": "::ffff:10.0.0.1"}]}, "mapped"),
        ({"services": [{**SERVICE, "address": "0.0.0.0"}]}, "unspecified"),
        ({"services": [{**SERVICE, "address": "fe80::1"}]}, "link-local"),
        ({"services": [{**SERVICE, "port": 0}]}, "the port of a service, from 1 to 65535"),
        ({"services": [{**SERVICE, "port": 65536}]}, "the port of a service, from 1 to 65535"),
        ({"services": [{**SERVICE, "port": True}]}, "the port of a service, from 1 to 65535"),
        ({"services": [{**SERVICE, "protocol": "sctp"}]}, "protocol to be one of tcp, udp"),
        ({"services": [{**SERVICE, "weight": 1}]}, "only address, masquerade, port, protocol in a service"),
        ({"services": [SERVICE, {**SERVICE, "protocol": "tcp"}]}, "tcp 10.96.0.1:80 twice"),
        ({"local_networks": ["10.0.0.1/8"]}, "has host bits set"),
        ({"local_networks": [f"10.{n // 256}.{n % 256}.0/24" for n in range(1025)]}, "at most 1024"),
        ({"source_addresses": []}, "a dictionary for ipvs_bpf_source_addresses"),
        ({"source_addresses": {"eth0": {"ipv4": "fd00::1"}}}, "an address of ipv4 for eth0"),
        ({"source_addresses": {"eth0": {"ipv4": "127.0.0.1"}}}, "loopback"),
        ({"source_addresses": {"eth0": {"ipv4": "255.255.255.255"}}}, "broadcast"),
        ({"source_addresses": {"eth0": {"ports": "80-90"}}}, "source ports of eth0 from 1024 on"),
        ({"mark_bits": [1, 1]}, "two different single bits"),
        ({"mark_bits": [3, 4]}, "two different single bits"),
        ({"mark_bits": 7}, "two bits of the packet mark"),
        ({"mark_bits": [True, 2]}, "a value of the packet mark"),
        ({"mark_bits": [1, 1 << 32]}, "a value of the packet mark"),
        ({"mark_bits": [1, 2], "mark_accepted": 2}, "without the bits of ipvs_bpf_mark_bits"),
        ({"mark_bits": [0x4000, 1], "follow": "kube_proxy"}, "that kube-proxy does not use"),
        ({"maximum_sessions": 0}, "ipvs_bpf_maximum_sessions from 1 to"),
        ({"maximum_sessions": 4194305}, "ipvs_bpf_maximum_sessions from 1 to 4194304"),
        ({"observe_seconds": 86401}, "ipvs_bpf_observe_seconds from 0 to 86400"),
        ({"drain_seconds": 86401}, "ipvs_bpf_drain_seconds from 0 to 86400"),
        ({"fast_path": "maybe"}, "true or false for ipvs_bpf_fast_path"),
        ({"kernel_settings": {"net.core.somaxconn": 1}}, "settings below net.ipv4.vs"),
        ({"mode": "bpf"}, "there is nothing to take"),
    ],
)
def test_what_is_wrong_is_said_with_the_variable_s_name(raw: dict[str, Json], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(raw)
    assert said in str(caught.value)
    assert caught.value.found.startswith("a mistake, so nothing was changed:")


def test_a_variable_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="check the spelling"):
        parse({"fastpath": True})


def test_a_hundred_mistakes_are_a_hundred_lines_that_each_say_which() -> None:
    services = [{"address": f"10.0.0.{number}", "port": "http"} for number in range(1, 98)]
    wrong = {"services": services, "mode": "fast", "mark_bits": [1], "drain_seconds": -1}
    with pytest.raises(InvalidInput) as caught:
        parse(wrong)
    lines = caught.value.found.strip().splitlines()
    assert lines[0] == "100 mistakes, so nothing was changed:"
    assert len(lines) == 101
    assert sum(f"ipvs_bpf_services, entry {number}: " in "\n".join(lines) for number in range(1, 98)) == 97


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"state": "present"}', b"\xff"])
def test_a_wish_that_was_damaged_is_said_to_be(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="damaged or edited by hand"):
        load_document(content, "/etc/meshaccel/ipvs_bpf.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(EVERYTHING)), JSON))
def test_whatever_is_given_is_a_wish_or_a_mistake(raw: dict[str, Json]) -> None:
    try:
        desired = parse(raw)
    except InvalidInput:
        return
    assert parse(json.loads(desired.document())) == desired
