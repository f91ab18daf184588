"""Whom kube-proxy masquerades, from what it writes in IPVS mode.

The rules are those of its documentation (pkg/proxy/ipvs/README.md) and of later versions, in the words of
iptables-save.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaccel.accelerators.ipvs_bpf import kube_proxy
from meshaccel.accelerators.ipvs_bpf.kube_proxy import Option, Rule, State
from meshaccel.accelerators.ipvs_bpf.layout import Masquerade
from meshaccel.accelerators.ipvs_bpf.masquerade import Decisions, Overrides, decide
from meshaccel.errors import MeshaccelError, Unsupported
from meshaccel.ipvs.model import AddressKey
from meshaccel.system import tools

SETS = """\
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x6e1c3f7a
add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
add KUBE-CLUSTER-IP 10.96.0.10,udp:53
create KUBE-EXTERNAL-IP hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-EXTERNAL-IP 192.0.2.1,tcp:80
create KUBE-EXTERNAL-IP-LOCAL hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-EXTERNAL-IP-LOCAL 192.0.2.2,tcp:80
create KUBE-LOAD-BALANCER hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-LOAD-BALANCER 203.0.113.1,tcp:80
add KUBE-LOAD-BALANCER 203.0.113.2,tcp:80
add KUBE-LOAD-BALANCER 203.0.113.3,tcp:80
create KUBE-LOAD-BALANCER-LOCAL hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-LOAD-BALANCER-LOCAL 203.0.113.2,tcp:80
create KUBE-LOAD-BALANCER-FW hash:ip,port family inet hashsize 1024 maxelem 65536
add KUBE-LOAD-BALANCER-FW 203.0.113.3,tcp:80
create KUBE-LOAD-BALANCER-SOURCE-CIDR hash:ip,port,net family inet hashsize 1024 maxelem 65536
add KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.3,tcp:80,198.51.100.0/24
create KUBE-LOAD-BALANCER-SOURCE-IP hash:ip,port,ip family inet hashsize 1024 maxelem 65536
create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536
add KUBE-LOOP-BACK 10.244.0.5,tcp:8080,10.244.0.5
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
add KUBE-NODE-PORT-TCP 30081
create KUBE-NODE-PORT-LOCAL-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-LOCAL-TCP 30081
create KUBE-NODE-PORT-UDP bitmap:port range 0-65535
add KUBE-NODE-PORT-UDP 30053
create KUBE-NODE-PORT-LOCAL-UDP bitmap:port range 0-65535
create KUBE-HEALTH-CHECK-NODE-PORT bitmap:port range 0-65535
add KUBE-HEALTH-CHECK-NODE-PORT 32000
create KUBE-IPVS-IPS hash:ip family inet hashsize 1024 maxelem 65536
add KUBE-IPVS-IPS 10.1.1.1
create somebody-else hash:ip,port family inet hashsize 1024 maxelem 65536
add somebody-else 10.1.1.1,tcp:80
create KUBE-6-CLUSTER-IP hash:ip,port family inet6 hashsize 1024 maxelem 65536
add KUBE-6-CLUSTER-IP fd00:96::1,tcp:443
create KUBE-6-LOAD-BALANCER hash:ip,port family inet6 hashsize 1024 maxelem 65536
add KUBE-6-LOAD-BALANCER 2001:db8::1,udp:53
"""
COMMON = """\
:PREROUTING ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m comment --comment "hairpin" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
"""
LOAD_BALANCER = """\
-A KUBE-LOAD-BALANCER -m set --match-set KUBE-LOAD-BALANCER-FW dst,dst -j KUBE-FIREWALL
-A KUBE-LOAD-BALANCER -m set --match-set KUBE-LOAD-BALANCER-LOCAL dst,dst -j RETURN
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-FIREWALL -m set --match-set KUBE-LOAD-BALANCER-SOURCE-CIDR dst,dst,src -j RETURN
-A KUBE-FIREWALL -j KUBE-MARK-DROP
"""
NODE_PORT = """\
-A KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j RETURN
-A KUBE-NODE-PORT -p tcp -m comment --comment "np" -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -p udp -m comment --comment "np" -m set --match-set KUBE-NODE-PORT-UDP dst -j KUBE-MARK-MASQ
"""
EXTERNAL = """\
-A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP dst,dst -m physdev ! --physdev-is-in \
-m addrtype ! --src-type LOCAL -j ACCEPT
-A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP dst,dst -m addrtype --dst-type LOCAL -j ACCEPT
-A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -m physdev ! --physdev-is-in \
-m addrtype ! --src-type LOCAL -j ACCEPT
-A KUBE-SERVICES -m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -m addrtype --dst-type LOCAL -j ACCEPT
"""
LAST = """\
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j ACCEPT
"""
FIRST = """\
-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
"""
#: How it is told which clients of a ClusterIP are masqueraded.
OF_NO_NETWORK = "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ\n"
OF_ALL = "-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n"
OF_NETWORK = (
    "-A KUBE-SERVICES ! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n"
)
OF_DEVICE = "-A KUBE-SERVICES ! -i cali+ -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ\n"
CHAINS6 = """\
:KUBE-SERVICES - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
-A KUBE-SERVICES ! -s fd00:244::/56 -m set --match-set KUBE-6-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set KUBE-6-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
"""

CLUSTER, DNS = AddressKey("tcp", "10.96.0.1", 443), AddressKey("udp", "10.96.0.10", 53)
EXTERNAL_IP, EXTERNAL_LOCAL = AddressKey("tcp", "192.0.2.1", 80), AddressKey("tcp", "192.0.2.2", 80)
BALANCED, BALANCED_LOCAL = AddressKey("tcp", "203.0.113.1", 80), AddressKey("tcp", "203.0.113.2", 80)
FILTERED = AddressKey("tcp", "203.0.113.3", 80)
NODE_PORT_TCP, NODE_PORT_LOCAL = (
    AddressKey("tcp", "172.16.0.9", 30080),
    AddressKey("tcp", "172.16.0.9", 30081),
)
NODE_PORT_UDP = AddressKey("udp", "172.16.0.9", 30053)
CLUSTER6, BALANCED6 = AddressKey("tcp", "fd00:96::1", 443), AddressKey("udp", "2001:db8::1", 53)


def state(*rules: str, chains6: str = CHAINS6, sets: str = SETS) -> State:
    text = "*nat\n" + COMMON + "".join(rules) + "COMMIT\n"
    return State(
        kube_proxy.parse_sets(sets),
        {4: kube_proxy.parse_chains(text), 6: kube_proxy.parse_chains(chains6)},
    )


def with_cluster_rule(rule: str) -> State:
    return state(LOAD_BALANCER, NODE_PORT, rule, FIRST, EXTERNAL, LAST)


def decided(service: AddressKey, found: State, overrides: Overrides | None = None) -> Masquerade | str:
    decisions = decide([service], found, overrides or Overrides())
    assert set(decisions.masquerade) | set(decisions.native) == {service}
    return decisions.masquerade.get(service) or decisions.native[service]


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (CLUSTER, Masquerade.REMOTE),
        (DNS, Masquerade.REMOTE),
        (EXTERNAL_IP, Masquerade.ALWAYS),
        (EXTERNAL_LOCAL, Masquerade.NEVER),
        (BALANCED, Masquerade.ALWAYS),
        (BALANCED_LOCAL, Masquerade.NEVER),
        (NODE_PORT_TCP, Masquerade.ALWAYS),
        (NODE_PORT_LOCAL, Masquerade.NEVER),
        (NODE_PORT_UDP, Masquerade.ALWAYS),
        (CLUSTER6, Masquerade.REMOTE),
        (BALANCED6, Masquerade.ALWAYS),
    ],
)
def test_each_kind_of_service(service: AddressKey, expected: Masquerade) -> None:
    found = with_cluster_rule(OF_NETWORK)
    assert decided(service, found) is expected
    assert decide([service], found).local_networks == ("10.244.0.0/16", "fd00:244::/56")


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", 0x4000),
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x80/0x80", 0x80),
        ("-A KUBE-MARK-MASQ -j LOG", 0),
        ("-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000", 0),
    ],
)
def test_the_mark_is_that_of_its_masquerade_chain(rule: str, mark: int) -> None:
    chains = kube_proxy.parse_chains(f":KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{rule}\n")
    assert decide([], State({}, {4: {}, 6: chains})).mark == mark


@pytest.mark.parametrize(
    ("service", "words"),
    [
        pytest.param(FILTERED, "loadBalancerSourceRanges", id="source-ranges"),
        pytest.param(AddressKey("tcp", "10.1.1.1", 80), "none of kube-proxy's", id="somebody-else"),
        pytest.param(AddressKey("udp", "172.16.0.9", 30080), "none of kube-proxy's", id="port-of-tcp"),
        pytest.param(AddressKey("tcp", "172.16.0.9", 32000), "none of kube-proxy's", id="health-check"),
        pytest.param(AddressKey("tcp", "10.244.0.5", 8080), "none of kube-proxy's", id="endpoint"),
        pytest.param(AddressKey("tcp", "10.96.0.1", 80), "none of kube-proxy's", id="other-port"),
    ],
)
def test_what_stays_native_says_why(service: AddressKey, words: str) -> None:
    assert words in decided(service, with_cluster_rule(OF_NETWORK))


@pytest.mark.parametrize(
    ("rule", "overrides", "expected"),
    [
        pytest.param(OF_NO_NETWORK, Overrides(), Masquerade.NEVER, id="no-network"),
        pytest.param("", Overrides(), Masquerade.NEVER, id="no-rule"),
        pytest.param(OF_ALL, Overrides(), Masquerade.ALWAYS, id="masquerade-all"),
        pytest.param(OF_NETWORK, Overrides(), Masquerade.REMOTE, id="cluster-cidr"),
        pytest.param(OF_DEVICE, Overrides(), "ipvs_bpf_local_networks says it", id="device"),
        pytest.param(
            OF_DEVICE, Overrides(local_networks=("10.0.0.0/8",)), Masquerade.REMOTE, id="device-said"
        ),
        pytest.param(
            OF_NETWORK, Overrides(local_networks=("10.0.0.0/8",)), Masquerade.REMOTE, id="other-cidr"
        ),
        pytest.param(OF_NETWORK, Overrides(masquerade_all=True), Masquerade.ALWAYS, id="all-said"),
        pytest.param(OF_DEVICE, Overrides(masquerade_all=True), Masquerade.ALWAYS, id="all-said-device"),
        pytest.param(OF_ALL, Overrides(masquerade_all=False), Masquerade.NEVER, id="not-all-said"),
        pytest.param(
            OF_ALL, Overrides(False, ("10.0.0.0/8",)), Masquerade.REMOTE, id="not-all-said-with-networks"
        ),
    ],
)
def test_masquerade_all_and_cluster_cidr(rule: str, overrides: Overrides, expected: Masquerade | str) -> None:
    decision = decided(CLUSTER, with_cluster_rule(rule), overrides)
    assert decision is expected if isinstance(expected, Masquerade) else expected in decision
    # They are of ClusterIPs alone.
    assert decided(NODE_PORT_TCP, with_cluster_rule(rule), overrides) is Masquerade.ALWAYS
    if overrides.local_networks:
        assert decide([CLUSTER], with_cluster_rule(rule), overrides).local_networks == ("10.0.0.0/8",)


def test_the_rules_of_an_old_version() -> None:
    """ACCEPT, not RETURN; the firewall behind the mark; jumps by the set of node ports (1.9 to 1.12)."""
    rules = """\
-A KUBE-SERVICES ! -s 10.244.16.0/24 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-FIREWALL
-A KUBE-FIREWALL -m set --match-set KUBE-LOAD-BALANCER-LOCAL dst,dst -j ACCEPT
-A KUBE-FIREWALL -m comment --comment "mark MASQ for external traffic policy not local" -j KUBE-MARK-MASQ
-A KUBE-FIREWALL -m set --match-set KUBE-LOAD-BALANCER-SOURCE-CIDR dst,dst,src -j ACCEPT
-A KUBE-FIREWALL -j KUBE-MARK-DROP
-A KUBE-SERVICES -p tcp -m tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-NODE-PORT
-A KUBE-NODE-PORT -m set --match-set KUBE-NODE-PORT-LOCAL-TCP dst -j ACCEPT
-A KUBE-NODE-PORT -j KUBE-MARK-MASQ
"""
    found = state(rules)
    assert decided(CLUSTER, found) is Masquerade.REMOTE
    assert decided(NODE_PORT_TCP, found) is Masquerade.ALWAYS
    assert decided(NODE_PORT_LOCAL, found) is Masquerade.NEVER
    assert decided(BALANCED_LOCAL, found) is Masquerade.NEVER
    assert "SourceRanges" in decided(BALANCED, found)


def test_a_new_version_s_firewall_is_in_the_filter_table_which_sees_every_packet() -> None:
    new = LOAD_BALANCER.replace(LOAD_BALANCER.splitlines(keepends=True)[0], "")
    found = state(new, NODE_PORT, OF_NETWORK, FIRST, EXTERNAL, LAST)
    assert decided(FILTERED, found) is Masquerade.ALWAYS


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("-A KUBE-SERVICES -j DNAT --to-destination 10.0.0.1", "none of kube-proxy's takes"),
        (
            "-A KUBE-SERVICES -m statistic --mode random --probability 0.5 -j KUBE-MARK-MASQ",
            "depends on more",
        ),
        ("-A KUBE-SERVICES -s 10.244.0.0/16 -j KUBE-MARK-MASQ", "local clients alone"),
        ("-A KUBE-SERVICES -s 10.9.0.0/16 -j RETURN\n" + OF_ALL, "depends on more"),
        ("-A KUBE-SERVICES -j KUBE-SERVICES", "none of kube-proxy's takes"),
    ],
)
def test_rules_that_are_not_understood(rule: str, words: str) -> None:
    assert words in decided(CLUSTER, state(rule + "\n"))


def test_a_network_that_tells_no_local_clients_stays_unknown_when_others_are_said() -> None:
    rules = state("-A KUBE-SERVICES -s 10.9.0.0/16 -j RETURN\n", OF_ALL)
    assert "depends on more" in decided(CLUSTER, rules, Overrides(local_networks=("10.0.0.0/8",)))


def test_without_rules_for_an_ip_version_its_services_stay_native() -> None:
    found = state(OF_ALL, chains6="*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
    assert "no chain KUBE-SERVICES" in decided(CLUSTER6, found)
    assert decided(CLUSTER, found) is Masquerade.ALWAYS


def test_ten_thousand_services_are_decided_by_kind() -> None:
    services = [AddressKey("tcp", f"10.97.{number >> 8}.{number & 255}", 80) for number in range(10_000)]
    entries = "".join(f"add KUBE-CLUSTER-IP {each.address},tcp:80\n" for each in services)
    decisions = decide(services, state(OF_NETWORK, sets=SETS + entries))
    assert decisions == Decisions(
        dict.fromkeys(services, Masquerade.REMOTE), {}, ("10.244.0.0/16", "fd00:244::/56"), 0x4000
    )


def test_a_line_that_is_cut_short_is_named() -> None:
    with pytest.raises(MeshaccelError, match="No closing quotation"):
        kube_proxy.parse_chains('-A C -m comment --comment "a')


def test_a_rule_s_words() -> None:
    words = '-A C ! -s 10.0.0.0/8 -p tcp -m comment --comment "a b \\" c" -m set ! --match-set S dst,dst -j T'
    assert kube_proxy.parse_chains(words)["C"] == (
        Rule(
            (
                Option("-s", ("10.0.0.0/8",), negated=True),
                Option("-p", ("tcp",)),
                Option("-m", ("comment",)),
                Option("--comment", ('a b " c',)),
                Option("-m", ("set",)),
                Option("--match-set", ("S", "dst,dst"), negated=True),
            ),
            "T",
        ),
    )


@given(st.text(alphabet="-A! KUBE:SRVICjdst,\n0x", max_size=60))
def test_any_text_is_rules_and_sets_or_the_error_that_names_a_line(text: str) -> None:
    kube_proxy.parse_sets(text)
    with contextlib.suppress(MeshaccelError):
        chains = kube_proxy.parse_chains(text)
        decide([CLUSTER], State(kube_proxy.parse_sets(SETS), {4: chains}))


# ---- reading ----


def answers(monkeypatch: pytest.MonkeyPatch, **outputs: str) -> None:
    """Have these programs, by their names with underscores, print that; others are not there."""

    def run(command: list[str], *, package: str) -> str:
        name = command[0].replace("-", "_")
        if name not in outputs:
            raise Unsupported(wanted=command[0], found="nothing", remedy=f"install {package}")
        return outputs[name]

    monkeypatch.setattr(tools, "run", run)


def test_rules_are_those_of_the_iptables_that_has_kube_proxy_s(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(
        monkeypatch,
        iptables_save=":PREROUTING ACCEPT [0:0]\n",
        iptables_legacy_save=COMMON,
        ip6tables_save=CHAINS6,
        ipset=SETS,
    )
    found = kube_proxy.read()
    assert found.chains == {4: kube_proxy.parse_chains(COMMON), 6: kube_proxy.parse_chains(CHAINS6)}
    assert found.sets == kube_proxy.parse_sets(SETS)


def test_a_missing_program_and_a_missing_kube_proxy_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, iptables_save=COMMON, ip6tables_save="")
    with pytest.raises(Unsupported, match="install ipset"):
        kube_proxy.read()
    answers(monkeypatch, iptables_save="", ip6tables_save="", ipset="")
    with pytest.raises(Unsupported, match="once kube-proxy runs in IPVS mode"):
        kube_proxy.read()
    answers(monkeypatch, ipset="")
    with pytest.raises(Unsupported, match="install iptables"):
        kube_proxy.read()
