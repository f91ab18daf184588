"""The lab itself: what other tests of IPVS stand on is as they believe it is, by ipvsadm and conntrack."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.ipvs import loads
from tests.ipvs.cluster import (
    CLUSTER_ADDRESS,
    NODE_PORT,
    SERVICE_PORT,
    check_clients_seen,
    cluster,
    versions,
)
from tests.ipvs.lab import Link
from tests.ipvs.observation import connections, served, tracked_flows
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from tests.ipvs.lab import Lab

SECONDS = 0.5


def test_the_native_path_tracks_every_flow_and_masquerades_as_kube_proxy_does(lab: Lab) -> None:
    with loads.nginx(lab.backends[0], "one"), loads.nginx(lab.backends[1], "two"):
        cluster(lab, loads.HTTP_PORT).start(lab.director)
        for version in (4, 6):
            check_clients_seen(lab, version)
            gateways = [backend.gateway(version) for backend in lab.backends]
            assert len(tracked_flows(lab.director, [CLUSTER_ADDRESS[version]])) == 2
            assert len(tracked_flows(lab.director, gateways)) == 2
    assert set(served(lab.director).values()) == {2}
    assert len(connections(lab.director)) == 8


def test_a_client_outside_of_the_cluster_is_masqueraded_at_a_cluster_address_too(lab: Lab) -> None:
    proxy = cluster(lab, loads.HTTP_PORT, cluster_networks=("10.200.0.0/16",))
    with loads.nginx(lab.backends[0], "one"), loads.nginx(lab.backends[1], "two"):
        proxy.start(lab.director)
        seen = {loads.request(lab.client, CLUSTER_ADDRESS[4], SERVICE_PORT) for _ in range(2)}
    assert seen == {f"one {lab.backends[0].gateway4}", f"two {lab.backends[1].gateway4}"}


def test_loads_go_through_without_an_error(lab: Lab) -> None:
    with loads.echo_and_sink(lab.backends), loads.nginx(lab.backends[0], "one"):
        cluster(lab, loads.ECHO_PORT).start(lab.director)
        node = lab.client.gateway4
        short = loads.requests(lab.client, Client("connect", duration=SECONDS), node, NODE_PORT)
        pingpong = loads.requests(lab.client, Client("pingpong", duration=SECONDS), node, NODE_PORT)
        sent = loads.stream(
            lab.client, Client("stream", 16_384, duration=SECONDS), lab.backends[0].address4, 5001
        )
        found = loads.wrk(lab.client, lab.backends[0].address4, loads.HTTP_PORT, 1)
    assert served(lab.director).total() == short.requests + 1
    assert pingpong.requests > short.requests > 10
    assert sent.bytes > 1_000_000
    assert found.requests > 10
    assert found.errors == 0


def test_a_pod_reaches_itself_through_a_service(lab: Lab) -> None:
    """The backend would answer itself past the director, so its address is replaced: KUBE-LOOP-BACK."""
    pod = lab.add_host("pod")
    proxy = cluster(lab, loads.HTTP_PORT, endpoints=(pod,), local_pods=frozenset({pod.address4}))
    with loads.nginx(pod, "pod"):
        proxy.start(lab.director)
        assert loads.request(pod, CLUSTER_ADDRESS[4], SERVICE_PORT) == f"pod {pod.gateway4}"


def test_backends_behind_every_kind_of_device_are_reached(lab: Lab) -> None:
    backends = [lab.add_host(link.name.lower(), link) for link in Link if link is not Link.WIRE]
    with contextlib.ExitStack() as servers:
        for backend in backends:
            servers.enter_context(loads.nginx(backend, backend.device))
        cluster(lab, loads.HTTP_PORT, endpoints=backends).start(lab.director)
        for version in (4, 6):
            of_version = [backend for backend in backends if version in versions(backend)]
            node = lab.client.gateway(version)
            reached = {loads.request(lab.client, node, NODE_PORT) for _ in of_version}
            assert reached == {f"{backend.device} {backend.gateway(version)}" for backend in of_version}
