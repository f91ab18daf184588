"""ipvs_bpf under programs of others: wrk and nginx, dig and dnsmasq, iperf3, keepalived."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import FlowKind
from meshaccel.ipvs.desired import parse
from meshaccel.ipvs.service import Services
from tests.ipvs import loads, programs
from tests.ipvs.cluster import CLUSTER_ADDRESS, NODE_PORT, SERVICE_PORT, addresses
from tests.ipvs.director import AcceleratedDirector, accelerated_director
from tests.ipvs.kube_proxy import KubeProxy, Service
from tests.ipvs.lab import NETWORKS, Lab
from tests.ipvs.observation import tracked_flows
from tests.ipvs.resolver import Resolver
from tests.support.accelerator import node_paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUESTIONS = 100
#: glibc asks again after five seconds: whoever loses one of two questions waits for so long.
AT_ONCE_SECONDS = 1.0
NAME_NODE_PORT, STREAM_NODE_PORT = 30053, 30201
KEEPALIVED_ADDRESS, KEEPALIVED_PORT = "10.97.0.1", 8081
OWN_ADDRESS = "10.97.0.2"


@pytest.fixture(scope="module")
def served() -> Iterator[AcceleratedDirector]:
    """A director with services of HTTP, names and streams, and everything running behind them."""
    with Lab.running() as lab, contextlib.ExitStack() as servers:
        for number, backend in enumerate(lab.backends):
            servers.enter_context(loads.nginx(backend, str(number)))
            servers.enter_context(programs.name_server(backend))
        servers.enter_context(programs.stream_server(lab.backends[0]))
        services_of(lab).start(lab.director)
        yield servers.enter_context(accelerated_director(lab, follow="kube_proxy"))


@pytest.fixture(scope="module", params=[False, True], ids=["slow", "fast"])
def director(served: AcceleratedDirector, request: pytest.FixtureRequest) -> AcceleratedDirector:
    served.converge(fast_path=request.param)
    return served


def services_of(lab: Lab) -> KubeProxy:
    """Return kube-proxy's services: at CLUSTER_ADDRESS, and at ports of the node."""
    services = [
        Service(
            CLUSTER_ADDRESS[version],
            port,
            target,
            addresses(lab.backends[:servers], version),
            protocol=protocol,
            node_port=node_port,
        )
        for version in (4, 6)
        for protocol, port, target, servers, node_port in (
            ("tcp", SERVICE_PORT, loads.HTTP_PORT, 2, NODE_PORT),
            ("udp", programs.NAME_PORT, programs.NAME_PORT, 2, NAME_NODE_PORT),
            # Both of iperf3's connections have to reach the same server.
            ("tcp", programs.STREAM_PORT, programs.STREAM_PORT, 1, STREAM_NODE_PORT),
            ("udp", programs.STREAM_PORT, programs.STREAM_PORT, 1, STREAM_NODE_PORT),
        )
    ]
    nodes = tuple(host.gateway(version) for host in lab.hosts for version in (4, 6))
    return KubeProxy(tuple(services), nodes, cluster_networks=NETWORKS)


def ways(lab: Lab, port: int, node_port: int, version: int = 4) -> tuple[tuple[str, int], ...]:
    """Return the ends by which a service is to be had: within the cluster, and masqueraded at the node."""
    return (CLUSTER_ADDRESS[version], port), (lab.client.gateway(version), node_port)


def tracked(lab: Lab, version: int = 4) -> list[str]:
    """Return conntrack's flows of the client, and of what it is masqueraded as."""
    return tracked_flows(lab.director, [lab.client.address(version), CLUSTER_ADDRESS[version]])


def shared_ports(director: AcceleratedDirector) -> list[tuple[bytes, int, int, bytes, int]]:
    """Return clients as backends see them, by the backend too, that are more than one session's."""
    translations = [
        (key.destination, key.destination_port, key.protocol, flow.new_source, flow.new_source_port)
        for key, flow in director.flows().items()
        if flow.kind == FlowKind.TRANSLATION
    ]
    assert translations
    return [translated for translated, number in Counter(translations).items() if number > 1]


@pytest.mark.parametrize("version", [4, 6])
def test_wrk_and_nginx(director: AcceleratedDirector, version: int) -> None:
    lab = director.lab
    for address, port in ways(lab, SERVICE_PORT, NODE_PORT, version):
        found = loads.wrk(lab.client, address, port, 1)
        assert found.requests > 50
        assert found.errors == 0
    assert tracked(lab, version) == []
    assert shared_ports(director) == []


def test_dig_and_dnsmasq(director: AcceleratedDirector) -> None:
    lab = director.lab
    for address, port in ways(lab, programs.NAME_PORT, NAME_NODE_PORT):
        for kind, answer in programs.ANSWERS.items():
            assert programs.dig(lab.client, address, port, kind) == answer
    assert tracked(lab) == []


@pytest.mark.parametrize("version", [4, 6])
def test_two_questions_at_once_from_one_port_are_both_answered_at_once(
    director: AcceleratedDirector, version: int
) -> None:
    """The race of which conntrack drops one of the two, and glibc waits for five seconds."""
    lab = director.lab
    for address, port in ways(lab, programs.NAME_PORT, NAME_NODE_PORT, version):
        taken = Resolver(lab.client, address, port, version).ask(QUESTIONS)
        assert max(taken) < AT_ONCE_SECONDS
    assert tracked(lab, version) == []
    assert shared_ports(director) == []


def test_iperf3(director: AcceleratedDirector) -> None:
    lab = director.lab
    for address, port in ways(lab, programs.STREAM_PORT, STREAM_NODE_PORT):
        for way in ((), ("--reverse",)):
            assert programs.stream(lab.client, address, port, *way)["bytes"] > 1_000_000
            sent = programs.stream(
                lab.client, address, port, "--udp", "--bandwidth", "2M", "--length", "1400", *way
            )
            assert sent["packets"] > 100
            assert sent["lost_packets"] == 0
    assert tracked(lab) == []


def test_keepalived_beside_services_of_ours(served: AcceleratedDirector, tmp_path: Path) -> None:
    """Each leaves the other's alone; a server that its health check takes out gets no new connections."""
    lab = served.lab
    ours = Services(node_paths(tmp_path, tmp_path / "bpffs"))
    wish = parse(
        {
            "services": [
                {
                    "address": OWN_ADDRESS,
                    "port": SERVICE_PORT,
                    "scheduler": "rr",
                    "servers": [f"{backend.address4}:{loads.HTTP_PORT}" for backend in lab.backends],
                }
            ]
        }
    )
    lab.director.configure(
        [["address", "add", own, "dev", "lo"] for own in (KEEPALIVED_ADDRESS, OWN_ADDRESS)]
    )
    with served.inside():
        ours.converge(wish)
    theirs = f"{KEEPALIVED_ADDRESS}:{KEEPALIVED_PORT}"
    backends = [backend.address4 for backend in lab.backends]
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(contextlib.ExitStack())
        first.enter_context(loads.nginx(lab.backends[0], "one", KEEPALIVED_PORT))
        servers.enter_context(loads.nginx(lab.backends[1], "two", KEEPALIVED_PORT))
        keepalived = servers.enter_context(
            programs.keepalived(lab.director, KEEPALIVED_ADDRESS, KEEPALIVED_PORT, backends)
        )
        before = lab.director.run(["ipvsadm", "-Sn"])
        served.converge(follow="all", masquerade="always")
        with served.inside():
            assert not ours.converge(wish).changed
        assert lab.director.run(["ipvsadm", "-Sn"]) == before
        asked = {loads.request(lab.client, KEEPALIVED_ADDRESS, KEEPALIVED_PORT) for _ in range(4)}
        assert asked == {f"one {lab.backends[0].gateway4}", f"two {lab.backends[1].gateway4}"}
        asked = {loads.request(lab.client, OWN_ADDRESS, SERVICE_PORT) for _ in range(2)}
        assert asked == {f"{number} {backend.gateway4}" for number, backend in enumerate(lab.backends)}
        first.close()
        keepalived.wait_until(
            lambda: programs.real_servers(lab.director, theirs) == [f"{backends[1]}:{KEEPALIVED_PORT}"],
            "the list without the server that is gone",
            10.0,
        )
        asked = {loads.request(lab.client, KEEPALIVED_ADDRESS, KEEPALIVED_PORT) for _ in range(4)}
        assert asked == {f"two {lab.backends[1].gateway4}"}
        served.converge(follow="all", masquerade="always")
        assert tracked_flows(lab.director, [KEEPALIVED_ADDRESS]) == []
    with served.inside():
        assert not ours.converge(wish).changed
    assert programs.real_servers(lab.director, f"{OWN_ADDRESS}:{SERVICE_PORT}") == [
        f"{backend}:{loads.HTTP_PORT}" for backend in backends
    ]
    assert programs.real_servers(lab.director, theirs) == []
