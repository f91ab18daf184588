"""ipvs_bpf among rules of others: those that drop, those that go, and kernels that lack something."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from meshaccel.errors import Unsupported
from meshaccel.ipvs import kernel_module
from tests.ipvs import loads, talk
from tests.ipvs.cluster import CLUSTER_ADDRESS, NODE_PORT, SERVICE_PORT, cluster
from tests.ipvs.director import AcceleratedDirector, accelerated_director
from tests.ipvs.lab import VXLAN_PORT, Lab, Link, address4

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST_PATH = pytest.mark.parametrize("fast_path", [False, True], ids=["slow", "fast"])
#: A fourth of the shortest of IPVS's timeouts is how often a flow on the fast path meets rules again.
TIMEOUT_SECONDS = 8
REFRESH_SECONDS = 2.0
#: Of a client that waits for the answer to each word for a second.
SLACK_SECONDS = 2.5
TABLE = ["inet", "meshaccel_ipvs_bpf"]
#: Of the service: within the cluster, and at the director's address towards the client, the first host.
WAYS = {"cluster": (CLUSTER_ADDRESS[4], SERVICE_PORT), "node": (address4(1, 1), NODE_PORT)}


@pytest.fixture(scope="module")
def director() -> Iterator[AcceleratedDirector]:
    """A director of a cluster with an echo; each test converges. IPVS's timeouts are short."""
    with (
        Lab.running() as lab,
        loads.echo_and_sink(lab.backends),
        accelerated_director(lab, follow="kube_proxy") as made,
    ):
        cluster(lab, loads.ECHO_PORT).start(lab.director)
        lab.director.run(["ipvsadm", "--set", *[str(TIMEOUT_SECONDS)] * 3])
        yield made


@contextlib.contextmanager
def rule(lab: Lab, chain: str, *words: str) -> Iterator[None]:
    """Have a rule of iptables' filter table before all others of a chain."""
    lab.director.run(["iptables", "-w", "-I", chain, *words])
    yield
    lab.director.run(["iptables", "-w", "-D", chain, *words])


@pytest.fixture
def dropping(director: AcceleratedDirector) -> Iterator[None]:
    """FORWARD drops what no rule of it accepts."""
    director.lab.director.run(["iptables", "-w", "-P", "FORWARD", "DROP"])
    yield
    director.lab.director.run(["iptables", "-w", "-P", "FORWARD", "ACCEPT"])


# ---- rules that drop ----


def reached(lab: Lab) -> dict[str, bool]:
    """Return which of a cluster's ways lead to a backend: within it, and at the node, masqueraded."""
    return {name: talk.reaches(lab.client, address, port) for name, (address, port) in WAYS.items()}


@FAST_PATH
@pytest.mark.usefixtures("dropping")
def test_where_forward_drops_all_but_what_kube_proxy_accepts_services_work(
    director: AcceleratedDirector, *, fast_path: bool
) -> None:
    lab = director.lab
    director.converge(mode="native")
    assert reached(lab) == {"cluster": True, "node": True}
    director.converge(fast_path=fast_path)
    assert reached(lab) == {"cluster": True, "node": True}
    with talk.connected(lab.client, lab.client.gateway4, NODE_PORT) as (connection,):
        assert talk.lasts(connection, 0.5) >= 0.5
    assert not talk.reaches(lab.client, lab.backends[0].address4, loads.ECHO_PORT)
    # Untracked, a reply is nothing that conntrack's rules know: without the mark it goes nowhere.
    director.converge(fast_path=fast_path, mark_accepted=0)
    assert reached(lab) == {"cluster": False, "node": False}


@FAST_PATH
@pytest.mark.parametrize(
    ("chain", "ends"),
    [
        # A request goes up to IPVS and from there out again, as if the node had sent it.
        ("INPUT", "-s {client} -d {service}"),
        ("OUTPUT", "-s {client} -d {backend}"),
        # A reply is forwarded.
        ("FORWARD", "-s {backend} -d {client}"),
    ],
)
def test_a_rule_that_drops_a_client(
    director: AcceleratedDirector, chain: str, ends: str, *, fast_path: bool
) -> None:
    lab = director.lab
    given = {"client": lab.client.address4, "service": CLUSTER_ADDRESS[4], "backend": "10.79.0.0/16"}
    director.converge(fast_path=fast_path)
    with talk.connected(lab.client, CLUSTER_ADDRESS[4], SERVICE_PORT) as (connection,):
        assert talk.lasts(connection, 0.3) >= 0.3
        with rule(lab, chain, *ends.format(**given).split(), "-j", "DROP"):
            assert not talk.reaches(lab.client, CLUSTER_ADDRESS[4], SERVICE_PORT)
            lasted = talk.lasts(connection, REFRESH_SECONDS + SLACK_SECONDS + 1)
    if not fast_path:
        assert lasted < SLACK_SECONDS
    elif chain == "FORWARD":
        # One reply every REFRESH_SECONDS is dropped, and sent again.
        assert lasted > REFRESH_SECONDS + SLACK_SECONDS
    else:
        assert lasted < REFRESH_SECONDS + SLACK_SECONDS


@FAST_PATH
def test_a_tunnel_s_own_packets_are_not_masqueraded(
    director: AcceleratedDirector, *, fast_path: bool
) -> None:
    """They inherit the packet's mark, by which kube-proxy's rules would do so."""
    lab = director.lab
    backend = lab.add_host(f"vxlan{fast_path:d}", Link.VXLAN)
    server = [f"{lab.client.gateway4}:{NODE_PORT}", "-r", f"{backend.address4}:{loads.ECHO_PORT}"]
    with loads.echo_and_sink([backend]):
        lab.director.run(["ipvsadm", "-a", "-t", *server, "-m"])
        director.converge(fast_path=fast_path)
        with talk.connected(lab.client, lab.client.gateway4, NODE_PORT, 3) as connections:
            assert all(talk.lasts(connection, 0.1) for connection in connections)
        tunnel = ["-L", "-p", "udp", "--orig-port-dst", VXLAN_PORT]
        assert VXLAN_PORT in lab.director.run(["conntrack", *tunnel])
        assert lab.director.run(["conntrack", *tunnel, "--src-nat"]) == ""
        lab.director.run(["ipvsadm", "-d", "-t", *server])


# ---- rules that go ----


@FAST_PATH
def test_a_ruleset_that_somebody_flushes_is_missed_and_written_anew(
    director: AcceleratedDirector, *, fast_path: bool
) -> None:
    """With kube-proxy's rules ours go. Meanwhile flows are conntrack's too, and work: old ones and new."""
    lab = director.lab
    director.converge(fast_path=fast_path)
    with (
        talk.connected(lab.client, *WAYS["cluster"]) as (within,),
        talk.connected(lab.client, *WAYS["node"]) as (masqueraded,),
    ):
        lab.director.run(["nft", "flush", "ruleset"])
        for connection in (within, masqueraded):
            assert talk.lasts(connection, 0.3) >= 0.3
        assert all(reached(lab).values())
        # Only when kube-proxy has written its own anew can it be followed.
        cluster(lab, loads.ECHO_PORT).write_rules(lab.director)
        missed = director.converge(fast_path=fast_path)
        assert [action.kind for action in missed.actions] == ["ipvs_bpf.nft_table"]
        for connection in (within, masqueraded):
            assert talk.lasts(connection, 0.3) >= 0.3
        assert all(reached(lab).values())
    assert not director.converge(fast_path=fast_path).changed


@FAST_PATH
def test_while_our_table_alone_is_gone(director: AcceleratedDirector, *, fast_path: bool) -> None:
    """New flows work, and old ones that are not masqueraded.

    A packet of a masqueraded one that takes the slow path just then is of a new flow to kube-proxy's rules,
    which give it another port: its backend does not know it.
    """
    lab = director.lab
    director.converge(fast_path=fast_path)
    with (
        talk.connected(lab.client, *WAYS["cluster"]) as (within,),
        talk.connected(lab.client, *WAYS["node"]) as (masqueraded,),
    ):
        lab.director.run(["nft", "delete", "table", *TABLE])
        assert all(reached(lab).values())
        assert talk.lasts(within, 0.3) >= 0.3
        if not fast_path:
            assert talk.lasts(masqueraded, 0.3) < 0.3
        assert director.converge(fast_path=fast_path).changed
        assert talk.lasts(within, 0.3) >= 0.3
    assert all(reached(lab).values())


# ---- what the kernel lacks ----


def test_without_ipvs_nothing_is_changed(lab: Lab) -> None:
    before = lab.director.run(["nft", "list", "ruleset"])
    with (
        accelerated_director(lab, masquerade="always") as director,
        mock.patch.object(kernel_module, "LISTING", "/proc/net/ip_vs_of_no_kernel"),
        mock.patch.object(kernel_module, "MODULE", "ip_vs_of_no_kernel"),
    ):
        with pytest.raises(Unsupported, match="IPVS in the kernel") as refused:
            director.converge()
        assert "ip_vs_of_no_kernel" in refused.value.found
        paths = director.service.paths
        assert not any(Path(path).exists() for path in (paths.pins, paths.configuration, paths.library))
    assert lab.director.run(["nft", "list", "ruleset"]) == before
    assert "clsact" not in lab.director.run(["tc", "qdisc", "show"])


def test_where_conntrack_is_not_there_nothing_goes_past_it(director: AcceleratedDirector) -> None:
    """A rule about it would load it."""
    with mock.patch("meshaccel.system.conntrack.present", return_value=False):
        director.converge()
        assert TABLE[1] not in director.lab.director.run(["nft", "list", "tables"])
        assert talk.reaches(director.lab.client, CLUSTER_ADDRESS[4], SERVICE_PORT)
        assert not director.converge().changed
