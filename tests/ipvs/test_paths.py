"""Flows through ipvs_bpf as backends and clients see them: behind every device, in both families."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.ipvs import datagrams, loads
from tests.ipvs.cluster import (
    CLUSTER_ADDRESS,
    NODE_PORT,
    SERVICE_PORT,
    check_clients_seen,
    cluster,
    versions,
)
from tests.ipvs.director import AcceleratedDirector, accelerated_director
from tests.ipvs.kube_proxy import KubeProxy, Service
from tests.ipvs.lab import Lab, Link
from tests.ipvs.observation import served, tracked_flows
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST_PATH = pytest.mark.parametrize("fast_path", [False, True], ids=["slow", "fast"])
VERSIONS = pytest.mark.parametrize("version", [4, 6])
DATAGRAM_PORT = 7000
SIZES = (1, 1400, 1500, 9000, 40_000)


@pytest.fixture
def director(lab: Lab) -> Iterator[AcceleratedDirector]:
    with accelerated_director(lab, follow="kube_proxy") as made:
        yield made


@FAST_PATH
def test_services_work_and_conntrack_sees_none_of_it(
    director: AcceleratedDirector, *, fast_path: bool
) -> None:
    lab = director.lab
    with loads.nginx(lab.backends[0], "one"), loads.nginx(lab.backends[1], "two"):
        cluster(lab, loads.HTTP_PORT).start(lab.director)
        director.converge(fast_path=fast_path)
        for version in (4, 6):
            check_clients_seen(lab, version)
            hosts = (lab.client.address(version), *(backend.gateway(version) for backend in lab.backends))
            assert tracked_flows(lab.director, [*hosts, CLUSTER_ADDRESS[version]]) == []
    assert set(served(lab.director).values()) == {2}
    assert len(director.sessions()) == 8


@FAST_PATH
@VERSIONS
def test_every_byte_arrives(director: AcceleratedDirector, version: int, *, fast_path: bool) -> None:
    lab = director.lab
    with loads.echo_and_sink(lab.backends):
        cluster(lab, loads.ECHO_PORT).start(lab.director)
        director.converge(fast_path=fast_path)
        node = lab.client.gateway(version)
        for address, port in ((CLUSTER_ADDRESS[version], SERVICE_PORT), (node, NODE_PORT)):
            short = loads.requests(lab.client, Client("connect", duration=0.5), address, port)
            large = loads.requests(lab.client, Client("pingpong", 65_536, duration=0.5), address, port)
            assert short.requests > 10
            assert large.requests > 10
        assert tracked_flows(lab.director, [lab.client.address(version)]) == []


@FAST_PATH
def test_backends_behind_every_kind_of_device(director: AcceleratedDirector, *, fast_path: bool) -> None:
    lab = director.lab
    backends = [lab.add_host(link.name.lower(), link) for link in Link if link is not Link.WIRE]
    with contextlib.ExitStack() as servers:
        for backend in backends:
            servers.enter_context(loads.nginx(backend, backend.device))
        cluster(lab, loads.HTTP_PORT, endpoints=backends).start(lab.director)
        director.converge(fast_path=fast_path)
        for version in (4, 6):
            of_version = [backend for backend in backends if version in versions(backend)]
            node = lab.client.gateway(version)
            reached = {loads.request(lab.client, node, NODE_PORT) for _ in of_version}
            assert reached == {f"{backend.device} {backend.gateway(version)}" for backend in of_version}
            assert tracked_flows(lab.director, [lab.client.address(version)]) == []


def test_a_pod_reaches_itself(director: AcceleratedDirector) -> None:
    lab = director.lab
    pod = lab.add_host("pod")
    proxy = cluster(lab, loads.HTTP_PORT, endpoints=(pod,), local_pods=frozenset({pod.address4}))
    with loads.nginx(pod, "pod"):
        proxy.start(lab.director)
        director.converge()
        assert loads.request(pod, CLUSTER_ADDRESS[4], SERVICE_PORT) == f"pod {pod.gateway4}"
        assert tracked_flows(lab.director, [pod.address4]) == []


@FAST_PATH
@VERSIONS
def test_datagrams_of_every_size(director: AcceleratedDirector, version: int, *, fast_path: bool) -> None:
    """Those that are larger than a packet travel in fragments, either way."""
    lab = director.lab
    node = lab.client.gateway(version)
    datagram_service(lab, version).start(lab.director)
    director.converge(fast_path=fast_path)
    with datagrams.echo(lab.backends, DATAGRAM_PORT, version):
        for address, port in ((CLUSTER_ADDRESS[version], SERVICE_PORT), (node, NODE_PORT)):
            with datagrams.udp_socket(lab.client, version) as client:
                client.connect((address, port))
                seen = {datagrams.ask(client, size) for size in SIZES for _ in range(3)}
            masqueraded = {backend.gateway(version) for backend in lab.backends}
            assert len(seen) == 1
            assert seen <= (masqueraded if port == NODE_PORT else {lab.client.address(version)})
    assert tracked_flows(lab.director, [lab.client.address(version)]) == []


@VERSIONS
def test_a_backend_without_a_listener_is_told_at_once(director: AcceleratedDirector, version: int) -> None:
    """By an ICMP error, which has to find its way back to the client's socket."""
    lab = director.lab
    datagram_service(lab, version).start(lab.director)
    director.converge()
    for address, port in (
        (CLUSTER_ADDRESS[version], SERVICE_PORT),
        (lab.client.gateway(version), NODE_PORT),
    ):
        with datagrams.udp_socket(lab.client, version) as client:
            client.connect((address, port))
            with pytest.raises(ConnectionRefusedError):
                datagrams.ask(client, 10)


@VERSIONS
@FAST_PATH
def test_a_smaller_packet_size_beyond_the_director_is_learnt(
    director: AcceleratedDirector, version: int, *, fast_path: bool
) -> None:
    """Large packets one way and the other; the device towards the backend takes smaller ones only."""
    lab = director.lab
    with loads.echo_and_sink(lab.backends):
        for backend in lab.backends:
            lab.director.run(["ip", "link", "set", backend.device, "mtu", "1300"])
            backend.namespace.run(["ip", "link", "set", "eth0", "mtu", "1300"])
        cluster(lab, loads.ECHO_PORT).start(lab.director)
        director.converge(fast_path=fast_path)
        node = lab.client.gateway(version)
        for address, port in ((CLUSTER_ADDRESS[version], SERVICE_PORT), (node, NODE_PORT)):
            large = loads.requests(lab.client, Client("pingpong", 65_536, duration=0.5), address, port)
            assert large.requests > 5


def datagram_service(lab: Lab, version: int) -> KubeProxy:
    """Return a kube-proxy with a service of UDP before all backends."""
    endpoints = tuple(backend.address(version) for backend in lab.backends)
    service = Service(
        CLUSTER_ADDRESS[version],
        SERVICE_PORT,
        DATAGRAM_PORT,
        endpoints,
        protocol="udp",
        node_port=NODE_PORT,
    )
    nodes = tuple(host.gateway(version) for host in lab.hosts)
    return KubeProxy((service,), nodes, cluster_networks=("10.79.0.0/16", "fd79::/16"))
