"""kube-proxy's state as text: what the tests of IPVS in guests stand on, by its documentation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ipvs.kube_proxy import KubeProxy, Service

WEB = Service("10.96.0.10", 80, 8080, ("10.244.1.5", "10.244.2.6"), node_port=30080)
PROXY = KubeProxy(
    (WEB,), ("192.0.2.1",), local_pods=frozenset({"10.244.1.5"}), cluster_networks=("10.244.0.0/16",)
)


@pytest.mark.parametrize(
    ("service", "members"),
    [
        (
            WEB,
            {
                "KUBE-CLUSTER-IP 10.96.0.10,tcp:80",
                "KUBE-IPVS-IPS 10.96.0.10",
                "KUBE-LOOP-BACK 10.244.1.5,tcp:8080,10.244.1.5",
                "KUBE-NODE-PORT-TCP 30080",
            },
        ),
        (
            replace(WEB, external_traffic_local=True),
            {
                "KUBE-CLUSTER-IP 10.96.0.10,tcp:80",
                "KUBE-IPVS-IPS 10.96.0.10",
                "KUBE-LOOP-BACK 10.244.1.5,tcp:8080,10.244.1.5",
                "KUBE-NODE-PORT-LOCAL-TCP 30080",
                "KUBE-NODE-PORT-TCP 30080",
            },
        ),
        (
            Service("10.96.0.10", 53, 53, (), "udp", 30053, ("203.0.113.1",)),
            {
                "KUBE-CLUSTER-IP 10.96.0.10,udp:53",
                "KUBE-EXTERNAL-IP 203.0.113.1,udp:53",
                "KUBE-IPVS-IPS 10.96.0.10",
                "KUBE-IPVS-IPS 203.0.113.1",
                "KUBE-NODE-PORT-UDP 30053",
            },
        ),
        (
            Service(
                "10.96.0.10",
                80,
                80,
                (),
                "sctp",
                30080,
                load_balancer_addresses=("203.0.113.2",),
                source_ranges=("198.51.100.0/24",),
            ),
            {
                "KUBE-CLUSTER-IP 10.96.0.10,sctp:80",
                "KUBE-IPVS-IPS 10.96.0.10",
                "KUBE-IPVS-IPS 203.0.113.2",
                "KUBE-LOAD-BALANCER 203.0.113.2,sctp:80",
                "KUBE-LOAD-BALANCER-FW 203.0.113.2,sctp:80",
                "KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.2,sctp:80,198.51.100.0/24",
                "KUBE-NODE-PORT-SCTP-HASH 192.0.2.1,sctp:30080",
            },
        ),
        (
            Service("fd96::10", 80, 80, (), external_addresses=("fd00::1",), external_traffic_local=True),
            {
                "KUBE-6-CLUSTER-IP fd96::10,tcp:80",
                "KUBE-6-EXTERNAL-IP-LOCAL fd00::1,tcp:80",
                "KUBE-6-IPVS-IPS fd96::10",
                "KUBE-6-IPVS-IPS fd00::1",
            },
        ),
    ],
    ids=["node port", "traffic local", "external", "load balancer", "IPv6"],
)
def test_a_services_members_of_sets(service: Service, members: set[str]) -> None:
    lines = replace(PROXY, services=(service,)).sets().splitlines()
    assert {line.removeprefix("add ") for line in lines if line.startswith("add ")} == members


def test_names_of_sets_are_as_long_as_the_kernel_takes() -> None:
    names = [line.split()[1] for line in PROXY.sets().splitlines() if line.startswith("create ")]
    assert len(set(names)) == len(names) == 34
    assert max(map(len, names)) == 31
    assert "KUBE-6-LOAD-BALANCER-SOURCE-CID" in names


@pytest.mark.parametrize(
    ("proxy", "match"),
    [
        (PROXY, "! -s 10.244.0.0/16 {comment} dst,dst"),
        (replace(PROXY, masquerade_all=True), "{comment} dst,dst"),
        (replace(PROXY, cluster_networks=()), "{comment} src,dst"),
    ],
    ids=["cluster network", "all", "neither"],
)
def test_which_clients_of_a_cluster_address_are_masqueraded(proxy: KubeProxy, match: str) -> None:
    comment = '-m comment --comment "Kubernetes service cluster ip + port for masquerade purpose"'
    wanted = match.format(comment=f"{comment} -m set --match-set KUBE-CLUSTER-IP")
    assert f"-A KUBE-SERVICES {wanted} -j KUBE-MARK-MASQ" in proxy.rules(4).splitlines()
    assert "KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ" not in proxy.rules(6)


def test_a_virtual_service_is_at_each_address_with_every_endpoint() -> None:
    text = replace(PROXY, services=(replace(WEB, affinity_seconds=10800),)).virtual_services()
    assert text.splitlines() == [
        "-A -t 10.96.0.10:80 -s rr -p 10800",
        "-a -t 10.96.0.10:80 -r 10.244.1.5:8080 -m -w 1",
        "-a -t 10.96.0.10:80 -r 10.244.2.6:8080 -m -w 1",
        "-A -t 192.0.2.1:30080 -s rr -p 10800",
        "-a -t 192.0.2.1:30080 -r 10.244.1.5:8080 -m -w 1",
        "-a -t 192.0.2.1:30080 -r 10.244.2.6:8080 -m -w 1",
    ]
