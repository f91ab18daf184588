"""The sets and chains of kube_proxy.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

MARK = "0x4000"
#: The longest name of a set, IPSET_MAXNAMELEN without its last zero.
NAME_CHARACTERS = 31
ADDRESS, ADDRESS_PORT, PORT = "hash:ip", "hash:ip,port", "bitmap:port"
#: The kind of every set, by its name in IPv4.
SETS = {
    "KUBE-LOOP-BACK": "hash:ip,port,ip",
    "KUBE-CLUSTER-IP": ADDRESS_PORT,
    "KUBE-EXTERNAL-IP": ADDRESS_PORT,
    "KUBE-EXTERNAL-IP-LOCAL": ADDRESS_PORT,
    "KUBE-LOAD-BALANCER": ADDRESS_PORT,
    "KUBE-LOAD-BALANCER-FW": ADDRESS_PORT,
    "KUBE-LOAD-BALANCER-LOCAL": ADDRESS_PORT,
    "KUBE-LOAD-BALANCER-SOURCE-IP": "hash:ip,port,ip",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net",
    "KUBE-NODE-PORT-TCP": PORT,
    "KUBE-NODE-PORT-LOCAL-TCP": PORT,
    "KUBE-NODE-PORT-UDP": PORT,
    "KUBE-NODE-PORT-LOCAL-UDP": PORT,
    "KUBE-NODE-PORT-SCTP-HASH": ADDRESS_PORT,
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH": ADDRESS_PORT,
    "KUBE-HEALTH-CHECK-NODE-PORT": PORT,
    "KUBE-IPVS-IPS": ADDRESS,
}
#: What each set is for, in the comment of its rules.
COMMENTS = {
    "KUBE-LOOP-BACK": "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    "KUBE-CLUSTER-IP": "Kubernetes service cluster ip + port for masquerade purpose",
    "KUBE-EXTERNAL-IP": "Kubernetes service external ip + port for masquerade and filter purpose",
    "KUBE-EXTERNAL-IP-LOCAL": "Kubernetes service external ip + port with externalTrafficPolicy=local",
    "KUBE-LOAD-BALANCER": "Kubernetes service lb portal",
    "KUBE-LOAD-BALANCER-FW": "Kubernetes service load balancer ip + port for load balancer with sourceRange",
    "KUBE-LOAD-BALANCER-LOCAL": "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
    "KUBE-LOAD-BALANCER-SOURCE-CIDR": (
        "Kubernetes service load balancer ip + port + source cidr for packet filter purpose"
    ),
    "KUBE-NODE-PORT-TCP": "Kubernetes nodeport TCP port for masquerade purpose",
    "KUBE-NODE-PORT-LOCAL-TCP": "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
    "KUBE-NODE-PORT-UDP": "Kubernetes nodeport UDP port for masquerade purpose",
    "KUBE-NODE-PORT-LOCAL-UDP": "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
    "KUBE-NODE-PORT-SCTP-HASH": (
        "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'"
    ),
    "KUBE-NODE-PORT-LOCAL-SCTP-HASH": (
        "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'"
    ),
    "KUBE-HEALTH-CHECK-NODE-PORT": "Kubernetes health check node port",
}
SNAT_COMMENT = "kubernetes service traffic requiring SNAT"
#: Rules of the nat table for sets that are not empty, in this order: chain, protocol, set, match, target.
NAT_MATCHES = (
    ("KUBE-POSTROUTING", "", "KUBE-LOOP-BACK", "dst,dst,src", "MASQUERADE"),
    ("KUBE-SERVICES", "", "KUBE-LOAD-BALANCER", "dst,dst", "KUBE-LOAD-BALANCER"),
    ("KUBE-LOAD-BALANCER", "", "KUBE-LOAD-BALANCER-LOCAL", "dst,dst", "RETURN"),
    ("KUBE-NODE-PORT", "tcp", "KUBE-NODE-PORT-LOCAL-TCP", "dst", "RETURN"),
    ("KUBE-NODE-PORT", "tcp", "KUBE-NODE-PORT-TCP", "dst", "KUBE-MARK-MASQ"),
    ("KUBE-NODE-PORT", "udp", "KUBE-NODE-PORT-LOCAL-UDP", "dst", "RETURN"),
    ("KUBE-NODE-PORT", "udp", "KUBE-NODE-PORT-UDP", "dst", "KUBE-MARK-MASQ"),
    ("KUBE-NODE-PORT", "sctp", "KUBE-NODE-PORT-LOCAL-SCTP-HASH", "dst,dst", "RETURN"),
    ("KUBE-NODE-PORT", "sctp", "KUBE-NODE-PORT-SCTP-HASH", "dst,dst", "KUBE-MARK-MASQ"),
)
#: The same of the filter table.
FILTER_MATCHES = (
    ("KUBE-PROXY-FIREWALL", "", "KUBE-LOAD-BALANCER-FW", "dst,dst", "KUBE-SOURCE-RANGES-FIREWALL"),
    ("KUBE-SOURCE-RANGES-FIREWALL", "", "KUBE-LOAD-BALANCER-SOURCE-CIDR", "dst,dst,src", "RETURN"),
)
#: Jumps from the tables' own chains, with their comments.
NAT_JUMPS = (
    ("PREROUTING", "KUBE-SERVICES", "kubernetes service portals"),
    ("OUTPUT", "KUBE-SERVICES", "kubernetes service portals"),
    ("POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
)
FILTER_JUMPS = (
    ("INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
    ("INPUT", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    ("INPUT", "KUBE-NODE-PORT", "kubernetes health check rules"),
    ("FORWARD", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    ("FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    ("OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
)
NAT_CHAINS = ("KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ")
FILTER_CHAINS = (
    "KUBE-FORWARD",
    "KUBE-NODE-PORT",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
)
#: Sets whose members are not the node's own business although the node has their addresses.
FILTERED_SETS = ("KUBE-LOAD-BALANCER", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL")


def set_name(name: str, version: int) -> str:
    """Return a set's name in an address family, cut to what the kernel takes."""
    return name if version == 4 else name.replace("KUBE-", "KUBE-6-", 1)[:NAME_CHARACTERS]


def created(kind: str, version: int) -> str:
    """Return a set's kind with its options, as `ipset save` lists it."""
    if kind == PORT:
        return f"{kind} range 0-65535"
    family = "inet" if version == 4 else "inet6"
    return f"{kind} family {family} hashsize 1024 maxelem 65536"


def cluster_masquerade(networks: Sequence[str], *, everything: bool) -> tuple[str, str]:
    """Return how KUBE-CLUSTER-IP is matched where it is masqueraded: the directions, and more."""
    if everything:
        return "dst,dst", ""
    if networks:
        return "dst,dst", f"! -s {networks[0]}"
    # Without a cluster's network: what the node itself sends from an address of a service.
    return "src,dst", ""


def tables(filled: Collection[str], masquerade: tuple[str, str], version: int) -> str:
    """Return the text for `iptables-restore`; `filled` are the sets that have members."""
    nat = [
        *_jumps(NAT_JUMPS),
        f"-A KUBE-SERVICES -s {'127.0.0.0/8' if version == 4 else '::1/128'} -j RETURN",
        *_matches(NAT_MATCHES, filled, version),
        *_services(filled, masquerade, version),
        "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {MARK}",
        f"-A KUBE-POSTROUTING {_comment(SNAT_COMMENT)} -j MASQUERADE --random-fully",
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {MARK}",
    ]
    return _table("nat", NAT_CHAINS, nat) + _table("filter", FILTER_CHAINS, _filter(filled, version))


def _services(filled: Collection[str], masquerade: tuple[str, str], version: int) -> Iterable[str]:
    """Return the rules of KUBE-SERVICES that more than a set decides on."""
    if "KUBE-CLUSTER-IP" in filled:
        directions, more = masquerade
        match = _set_match("KUBE-CLUSTER-IP", directions, version)
        yield " ".join(["-A KUBE-SERVICES", *more.split(), match, "-j KUBE-MARK-MASQ"])
    for name in ("KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL"):
        if name not in filled:
            continue
        match = _set_match(name, "dst,dst", version)
        if name == "KUBE-EXTERNAL-IP":
            yield f"-A KUBE-SERVICES {match} -j KUBE-MARK-MASQ"
        outside = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL"
        yield f"-A KUBE-SERVICES {match} {outside} -j ACCEPT"
        yield f"-A KUBE-SERVICES {match} -m addrtype --dst-type LOCAL -j ACCEPT"
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT"
    for name in ("KUBE-CLUSTER-IP", "KUBE-LOAD-BALANCER"):
        if name in filled:
            yield f"-A KUBE-SERVICES -m set --match-set {set_name(name, version)} dst,dst -j ACCEPT"


def _filter(filled: Collection[str], version: int) -> Iterable[str]:
    health = "KUBE-HEALTH-CHECK-NODE-PORT"
    yield from _jumps(FILTER_JUMPS)
    yield from _matches(FILTER_MATCHES, filled, version)
    yield "-A KUBE-SOURCE-RANGES-FIREWALL -j DROP"
    marked = f"-m mark --mark {MARK}/{MARK}"
    yield f"-A KUBE-FORWARD {_comment('kubernetes forwarding rules')} {marked} -j ACCEPT"
    known = "-m conntrack --ctstate RELATED,ESTABLISHED"
    yield f"-A KUBE-FORWARD {_comment('kubernetes forwarding conntrack rule')} {known} -j ACCEPT"
    yield f"-A KUBE-NODE-PORT {_set_match(health, 'dst', version)} -j ACCEPT"
    for name in FILTERED_SETS:
        yield f"-A KUBE-IPVS-FILTER -m set --match-set {set_name(name, version)} dst,dst -j RETURN"
    yield f"-A KUBE-IPVS-FILTER -m set --match-set {set_name(health, version)} dst -j RETURN"
    addresses = f"-m set --match-set {set_name('KUBE-IPVS-IPS', version)} dst"
    yield f"-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW {addresses} -j REJECT"


def _table(name: str, chains: Iterable[str], lines: Iterable[str]) -> str:
    return "\n".join([f"*{name}", *(f":{chain} - [0:0]" for chain in chains), *lines, "COMMIT", ""])


def _jumps(jumps: Iterable[tuple[str, str, str]]) -> Iterable[str]:
    return (f"-A {chain} {_comment(comment)} -j {target}" for chain, target, comment in jumps)


def _matches(
    matches: Iterable[tuple[str, str, str, str, str]], filled: Collection[str], version: int
) -> Iterable[str]:
    for chain, protocol, name, directions, target in matches:
        if name in filled:
            words = ["-A", chain, *(["-p", protocol] if protocol else [])]
            yield " ".join([*words, _set_match(name, directions, version), "-j", target])


def _set_match(name: str, directions: str, version: int) -> str:
    return f"{_comment(COMMENTS[name])} -m set --match-set {set_name(name, version)} {directions}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'
