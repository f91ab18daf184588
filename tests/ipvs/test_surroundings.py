"""What ipvs_bpf reads and sets where there is IPVS: kube-proxy's rules, IPVS's settings."""

from __future__ import annotations

from typing import Any

import pytest

from meshaccel import engine
from meshaccel.accelerators.ipvs_bpf import kernel_settings, kube_proxy, tencent
from meshaccel.accelerators.ipvs_bpf.masquerade import Overrides, decide
from meshaccel.ipvs.model import AddressKey
from meshaccel.system import sysctl
from meshaccel.system.network_namespaces import entered
from tests.ipvs.kube_proxy import KubeProxy
from tests.ipvs.kube_proxy import Service as KubeService
from tests.support.namespaces import NetworkNamespace

NODE4, NODE6 = "10.0.0.1", "fd00::1"
NETWORKS = ("10.244.0.0/16", "fd00:244::/56")
BALANCED, RANGED, LOCAL = "203.0.113.1", "203.0.113.2", "203.0.113.3"
SERVICES = (
    KubeService("10.96.0.1", 80, 8080, ("10.244.0.5",), node_port=30080, external_addresses=("192.0.2.1",)),
    KubeService("10.96.0.2", 53, 53, ("10.244.0.6",), "udp", node_port=30053),
    KubeService("10.96.0.3", 80, 8080, ("10.244.0.7",), load_balancer_addresses=(BALANCED,)),
    KubeService(
        "10.96.0.4",
        80,
        8080,
        ("10.244.0.8",),
        load_balancer_addresses=(RANGED,),
        source_ranges=("10.9.0.0/16",),
    ),
    KubeService(
        "10.96.0.5", 80, 8080, ("10.244.0.9",), load_balancer_addresses=(LOCAL,), external_traffic_local=True
    ),
    KubeService("fd96::1", 80, 8080, ("fd00:244::5",), node_port=30080),
)
FOREIGN = AddressKey("tcp", "10.50.0.1", 80)
FROM_CLUSTER = {
    AddressKey("tcp", "10.96.0.1", 80),
    AddressKey("udp", "10.96.0.2", 53),
    AddressKey("tcp", "10.96.0.3", 80),
    AddressKey("tcp", "10.96.0.4", 80),
    AddressKey("tcp", "10.96.0.5", 80),
    AddressKey("tcp", "fd96::1", 80),
}
ALWAYS = {
    AddressKey("tcp", "192.0.2.1", 80),
    AddressKey("tcp", BALANCED, 80),
    # Its ranges are looked after in the filter table, which sees every packet.
    AddressKey("tcp", RANGED, 80),
    AddressKey("tcp", NODE4, 30080),
    AddressKey("udp", NODE4, 30053),
    AddressKey("tcp", NODE6, 30080),
}
NEVER = {AddressKey("tcp", LOCAL, 80)}
EVERYTHING = [*FROM_CLUSTER, *ALWAYS, *NEVER, FOREIGN]


def state(**flags: Any) -> kube_proxy.State:
    """Return what is read on a node where kube-proxy runs with these flags."""
    proxy = KubeProxy(SERVICES, (NODE4, NODE6), **flags)
    with NetworkNamespace("node") as node:
        proxy.start(node)
        with entered(str(node.path)):
            return kube_proxy.read()


@pytest.mark.parametrize(
    ("flags", "from_cluster"),
    [
        pytest.param({"cluster_networks": NETWORKS}, "remote", id="cluster-cidr"),
        pytest.param({"masquerade_all": True}, "always", id="masquerade-all"),
        pytest.param({}, "never", id="neither"),
    ],
)
def test_whom_kube_proxy_masquerades(flags: dict[str, object], from_cluster: str) -> None:
    found = decide(EVERYTHING, state(**flags), Overrides())
    assert {service: masquerade.value for service, masquerade in found.masquerade.items()} == {
        **dict.fromkeys(FROM_CLUSTER, from_cluster),
        **dict.fromkeys(ALWAYS, "always"),
        **dict.fromkeys(NEVER, "never"),
    }
    assert set(found.native) == {FOREIGN}
    assert found.local_networks == (NETWORKS if from_cluster == "remote" else ())


def test_ipvs_settings_of_a_namespace_are_set_and_set_back() -> None:
    with NetworkNamespace("node") as node, entered(str(node.path)):
        before = kernel_settings.observe()
        wished = kernel_settings.wished(kernel_settings.kernel_version(), before.values, {})
        assert wished["net.ipv4.vs.conntrack"] == "1"
        plan = kernel_settings.setting(wished, before)
        engine.apply(plan, kernel_settings.handlers())
        assert {name: sysctl.read(name) for name in wished} == wished
        assert node.run(["sysctl", "-n", "net.ipv4.vs.expire_nodest_conn"]).strip() == "1"
        assert engine.undo(plan, kernel_settings.handlers()) == ()
        assert kernel_settings.observe() == before


def test_this_kernel_is_not_tencent_s() -> None:
    assert tencent.observe() == tencent.Observed()
