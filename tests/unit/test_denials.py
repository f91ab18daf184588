"""What an operator may deny, what is refused and in which words, and the kernel's table for it."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.denials import desired, networks, nft_sets, table
from meshaccel.accelerators.sockops.denials.desired import Denials
from meshaccel.accelerators.sockops.denials.executables import DEFAULT_EXECUTABLES, outermost
from meshaccel.accelerators.sockops.denials.networks import DeniedNetwork, flatten
from meshaccel.accelerators.sockops.denials.nft_sets import NftSet
from meshaccel.errors import InvalidInput
from meshaccel.ports import PortRange

if TYPE_CHECKING:
    from meshaccel.model import Json

BLOCKED = NftSet("inet", "filter", "blocked")
WITH_16_RANGES = {"network": "10.0.0.0/8", "ports": list(range(1, 33, 2))}


def ranges(*bounds: tuple[int, int]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first, last) for first, last in bounds)


def denied(*entries: Json) -> tuple[DeniedNetwork, ...]:
    return desired.parse({"denied_networks": list(entries)}).networks


# ---- what is accepted ----


def test_nothing_said_denies_the_executables_that_are_known_not_to_suit() -> None:
    assert desired.parse({}) == Denials((), (), DEFAULT_EXECUTABLES) == Denials()


@pytest.mark.parametrize(
    ("entry", "network"),
    [
        pytest.param("10.0.0.0/8", DeniedNetwork("10.0.0.0/8"), id="network"),
        pytest.param("10.0.0.1", DeniedNetwork("10.0.0.1/32"), id="address"),
        pytest.param("10.0.0.0/255.0.0.0", DeniedNetwork("10.0.0.0/8"), id="mask"),
        pytest.param("FD00:0::/8", DeniedNetwork("fd00::/8"), id="ipv6"),
        pytest.param("fd00::1", DeniedNetwork("fd00::1/128"), id="ipv6-address"),
        pytest.param("0.0.0.0/0", DeniedNetwork("0.0.0.0/0"), id="all-of-ipv4"),
        pytest.param("::ffff:10.0.0.0/104", DeniedNetwork("10.0.0.0/8"), id="mapped"),
        pytest.param("::ffff:1.2.3.4", DeniedNetwork("1.2.3.4/32"), id="mapped-address"),
        pytest.param("::/0", DeniedNetwork("::/0"), id="all-of-ipv6"),
        pytest.param({"network": "::1"}, DeniedNetwork("::1/128"), id="without-ports"),
        pytest.param({"network": "::1", "ports": None}, DeniedNetwork("::1/128"), id="ports-null"),
        pytest.param({"network": "::1", "ports": []}, DeniedNetwork("::1/128"), id="no-ports-means-all"),
        pytest.param(
            {"network": "::1", "ports": [6379, "80-90"]},
            DeniedNetwork("::1/128", ranges((80, 90), (6379, 6379))),
            id="ports",
        ),
    ],
)
def test_networks(entry: Json, network: DeniedNetwork) -> None:
    assert denied(entry) == (network,)


@pytest.mark.parametrize("entry", ["haproxy", "/usr/sbin/haproxy", "nginx: worker", "ünïcode", "a.b-c_d"])
def test_executables_are_names_and_absolute_paths(entry: str) -> None:
    assert desired.parse({"denied_executables": [entry]}).executables == (entry,)


def test_an_empty_list_of_executables_denies_none() -> None:
    assert desired.parse({"denied_executables": []}).executables == ()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param({"denied_networks": "10.0.0.0/8"}, "YAML list", id="no-list"),
        pytest.param({"denied_networks": ["10.0.0.1/8"]}, "host bits", id="host-bits"),
        pytest.param({"denied_networks": ["10.0.0.0/33"]}, "'10.0.0.0/33'", id="length"),
        pytest.param({"denied_networks": ["nowhere"]}, "IPv4 or IPv6", id="word"),
        pytest.param({"denied_networks": [""]}, "IPv4 or IPv6", id="empty"),
        pytest.param({"denied_networks": [10]}, "or as network and ports", id="number"),
        pytest.param({"denied_networks": [{"network": 10}]}, "network as text", id="network-number"),
        pytest.param({"denied_networks": [{"network": None}]}, "network as text", id="network-null"),
        pytest.param({"denied_networks": ["fe80::1%eth0"]}, "'fe80::1%eth0'", id="scope"),
        pytest.param({"denied_networks": [{"ports": [80]}]}, "network and ports", id="ports-alone"),
        pytest.param({"denied_networks": [{"network": "::1", "port": 80}]}, "'port'", id="misspelt"),
        pytest.param({"denied_networks": [{"network": "::1", "ports": 80}]}, "list of ports", id="port"),
        pytest.param({"denied_networks": [{"network": "::1", "ports": [0]}]}, "from 1", id="port-0"),
        pytest.param(
            {"denied_networks": [WITH_16_RANGES, {"network": "10.0.0.1", "ports": [1000]}]},
            "at most 16 ports and ranges of 10.0.0.1/32",
            id="ports-of-two-networks",
        ),
        pytest.param({"denied_nft_sets": ["blocked"]}, "family, table and set", id="set-text"),
        pytest.param({"denied_nft_sets": [{"family": "inet", "table": "f"}]}, "and set", id="set-key"),
        pytest.param(
            {"denied_nft_sets": [{"family": "bridge", "table": "f", "set": "s"}]}, "'bridge'", id="family"
        ),
        pytest.param(
            {"denied_nft_sets": [{"family": ["inet"], "table": "f", "set": "s"}]}, "inet", id="family-list"
        ),
        *(
            pytest.param(
                {"denied_nft_sets": [{"family": "inet", "table": "filter", "set": name}]},
                "name of a set",
                id=f"set-{name!r}",
            )
            for name in ("s; flush ruleset", "s\n", "-f", "", "{", "s s", 5, None)
        ),
        pytest.param({"denied_executables": "haproxy"}, "YAML list", id="executables-text"),
        *(
            pytest.param({"denied_executables": [name]}, "name or absolute path", id=f"executable-{name!r}")
            for name in ("", " haproxy", "bin/haproxy", "/bin/", "/usr//bin/x", "/", "//x", "a\0b", 5, None)
        ),
    ],
)
def test_what_is_refused_and_in_which_words(raw: dict[str, Json], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        desired.parse(raw)
    assert words in str(refused.value)


# ---- the kernel's table ----

ports = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda pair: PortRange(pair[0], sum(pair))),
    max_size=2,
).map(tuple)
#: Short addresses, so that networks lie in each other.
ipv4 = st.tuples(st.integers(0, 15), st.integers(0, 4)).map(
    lambda pair: str(ipaddress.IPv4Network((pair[0] << 28, pair[1]), strict=False))
)
ipv6 = st.tuples(st.integers(0, 15), st.integers(0, 4)).map(
    lambda pair: str(ipaddress.IPv6Network((pair[0] << 124, pair[1]), strict=False))
)
rule_lists = st.lists(st.builds(DeniedNetwork, ipv4 | ipv6, ports), max_size=8)


def matches(rule: DeniedNetwork, address: str, port: int) -> bool:
    inside = ipaddress.ip_address(address) in ipaddress.ip_network(rule.network)
    return inside and (not rule.ports or any(each.first <= port <= each.last for each in rule.ports))


@given(rule_lists, st.integers(0, 15), st.booleans(), st.integers(1, 17))
def test_the_longest_match_says_what_all_rules_say_together(
    rules: list[DeniedNetwork], high: int, version_6: bool, port: int
) -> None:
    """The kernel looks at the longest match only."""
    address = str(ipaddress.IPv6Address(high << 124) if version_6 else ipaddress.IPv4Address(high << 28))
    around = [
        entry
        for entry in flatten(rules)
        if ipaddress.ip_address(address) in ipaddress.ip_network(entry.network)
    ]
    longest = max(around, key=lambda entry: ipaddress.ip_network(entry.network).prefixlen, default=None)
    expected = any(matches(rule, address, port) for rule in rules)
    assert (longest is not None and matches(longest, address, port)) == expected


@given(rule_lists)
def test_the_table_is_sorted_and_its_own_table(rules: list[DeniedNetwork]) -> None:
    flat = flatten(rules)
    assert flatten(reversed(flat)) == flat == tuple(sorted(flat))
    assert len({entry.network for entry in flat}) == len(flat)


@given(rule_lists)
def test_the_kernels_entries_are_read_back_as_they_were_written(rules: list[DeniedNetwork]) -> None:
    for rule in flatten(rules):
        assert table.rule_of(*table.entry_of(rule)) == rule


def test_an_entry_of_each_version_in_bytes() -> None:
    key, value = table.entry_of(DeniedNetwork("10.0.0.0/8", ranges((80, 90))))
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 0])
    assert key == (32 + 96 + 8).to_bytes(4, "little") + (4).to_bytes(4, "little") + mapped
    assert value == b"\x01\0\0\0" + b"\x50\0\x5a\0" + bytes(15 * 4)
    key, value = table.entry_of(DeniedNetwork("fd00::/8"))
    assert key == (32 + 8).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"\xfd" + bytes(15)
    assert value == bytes(4 + 16 * 4)


def test_ports_that_touch_take_one_range() -> None:
    many = DeniedNetwork("::1/128", ranges(*((port, port) for port in range(1, 100))))
    assert flatten([many]) == (DeniedNetwork("::1/128", ranges((1, 99))),)


def test_a_table_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "DENIED_NETWORKS", 2)
    with pytest.raises(InvalidInput, match="at most 2 denied networks"):
        flatten(denied("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert len(flatten(denied("10.0.0.1", "10.0.0.2", "10.0.0.0/30"))) == 1


# ---- kept on the node ----

denials = st.builds(
    Denials,
    rule_lists.map(tuple).map(lambda rules: tuple(networks.parse_network(rule.as_dict()) for rule in rules)),
    st.lists(st.builds(NftSet, st.sampled_from(nft_sets.FAMILIES), st.just("t"), st.just("s"))).map(tuple),
    st.lists(st.sampled_from(["haproxy", "/usr/sbin/x"])).map(tuple),
)


@given(denials)
def test_what_is_kept_is_read_back_as_it_was(wished: Denials) -> None:
    assert desired.parse(json.loads(json.dumps(wished.as_dict()))) == wished


# ---- nftables sets, as nft 1.0.6 lists them ----


def listing(kind: Json, *elements: Json) -> list[Json]:
    found: dict[str, Json] = {
        "family": "inet",
        "name": "blocked",
        "table": "filter",
        "type": kind,
        "handle": 1,
    }
    if elements:
        found["elem"] = list(elements)
    return [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, {"set": found}]


PAIR4, PAIR6 = ["ipv4_addr", "inet_service"], ["ipv6_addr", "inet_service"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(listing("ipv4_addr"), [], id="empty"),
        pytest.param(listing("ipv4_addr", "10.0.0.1"), ["10.0.0.1/32"], id="address"),
        pytest.param(
            listing("ipv4_addr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), ["10.0.0.0/8"], id="prefix"
        ),
        pytest.param(
            listing("ipv4_addr", {"range": ["192.168.0.3", "192.168.0.9"]}),
            ["192.168.0.3/32", "192.168.0.4/30", "192.168.0.8/31"],
            id="interval",
        ),
        pytest.param(
            listing("ipv6_addr", {"elem": {"val": "fd00::1", "timeout": 3600, "comment": "x"}}),
            ["fd00::1/128"],
            id="time-out",
        ),
        pytest.param(
            listing(PAIR4, {"concat": ["10.0.0.1", 80]}, {"concat": ["10.0.0.1", 443]}),
            ["10.0.0.1/32 ports 80", "10.0.0.1/32 ports 443"],
            id="ports",
        ),
        pytest.param(
            listing(PAIR4, {"concat": [{"prefix": {"addr": "10.0.0.0", "len": 24}}, {"range": [80, 90]}]}),
            ["10.0.0.0/24 ports 80-90"],
            id="port-interval",
        ),
        pytest.param(
            listing(PAIR6, {"elem": {"val": {"concat": ["fd00::1", 80]}, "expires": 9}}),
            ["fd00::1/128 ports 80"],
            id="ports-with-time-out",
        ),
    ],
)
def test_elements_of_a_set(found: list[Json], expected: list[str]) -> None:
    assert [str(rule) for rule in nft_sets.parse_listing(found, BLOCKED)] == expected


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(listing("inet_service", 80), "the type inet_service", id="ports-alone"),
        pytest.param(listing(["inet_service", "ipv4_addr"]), "'ipv4_addr'", id="other-order"),
        pytest.param(listing(["ipv4_addr", "inet_proto", "inet_service"]), "inet_proto", id="three"),
        pytest.param(listing("ipv4_addr", 5), "set inet filter blocked", id="number"),
        pytest.param(listing("ipv4_addr", {"map": 1}), "'range'", id="unknown"),
        pytest.param(listing(PAIR4, {"concat": ["10.0.0.1", "http"]}), "http", id="service-name"),
        pytest.param(listing(PAIR4, {"concat": ["10.0.0.1", 65536]}), "65536", id="port-too-large"),
        pytest.param(listing(PAIR4, {"concat": ["10.0.0.1", 1, 2]}), "too many values", id="three-parts"),
        pytest.param(
            listing("ipv4_addr", {"range": ["10.0.0.9", "10.0.0.1"]}), "something else", id="backwards"
        ),
    ],
)
def test_anything_else_in_a_set_is_an_error_that_names_it(found: list[Json], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        nft_sets.parse_listing(found, BLOCKED)
    assert words in str(refused.value)


# ---- which cgroups are looked through ----


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a", "a/b", "b"], ["a", "b"]),
        (["a-b", "a", "a/c", "a-b/c"], ["a", "a-b"]),
        (["a", "a"], ["a"]),
        (["a", ".", "b/c"], ["."]),
        ([], []),
    ],
)
def test_a_cgroup_below_another_is_looked_through_once(paths: list[str], expected: list[str]) -> None:
    assert sorted(outermost(paths)) == expected
