"""`meshaccel explain` on the running kernel: each situation is made, and what is said of it has to be so."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.explanations import Explainer
from tests.kernel.installations import present
from tests.kernel.observation import assert_redirected, wait_until
from tests.kernel.topologies import WIRE, Cgroups, Topology, namespaces, one_pod, routed, two_pods
from tests.support import netfilter
from tests.support.cgroups import TestCgroup
from tests.support.connections import (
    Connection,
    accept,
    connected,
    open_connection,
)
from tests.support.namespaces import Attachment, connect
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.support.namespaces import NetworkNamespace

MULTIPATH = socket.IPPROTO_MPTCP
SO_ZEROCOPY = 60
SMALL_WRITE = 64
STREAM_WRITES = 2000
UNASSIGNED_PORT = 9


@pytest.fixture
def explainer(
    node: Sockops, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Explainer]:
    """Return what explains the connections of the file's node, which is on, and is so again at the end."""
    yield Explainer(node, monkeypatch, capsys)
    Path(node.paths.holds).unlink(missing_ok=True)
    present(node, cgroups.paths)


@pytest.fixture
def live(explainer: Explainer, topology: Topology) -> Iterator[Connection]:
    """A connection that is accelerated when the test begins."""
    with connected(topology.client, topology.server, topology.address4) as connection:
        assert_redirected(explainer.node, topology, connection)
        yield connection


# ---- accelerated ----


def test_an_accelerated_connection_is_told_with_its_programs_cgroups_and_bytes(
    explainer: Explainer, cgroups: Cgroups, topology: Topology
) -> None:
    with connected(topology.client, topology.server, topology.address4) as connection:
        assert explainer.cause(connection) == "no_message"
        moved = connection.exchange()
        explained = explainer.explained(connection)
        here = {"process": os.getpid(), "name": Path("/proc/self/exe").resolve().name}
        assert (explained["redirected"], explained["cause"]) == (True, "redirected")
        assert explained["bytes"] == {"redirected": moved, "tcp": 0}
        assert [explained["ends"][role]["cgroup"] for role in ("client", "server")] == cgroups.paths
        assert [explained["ends"][role]["opted_in_by"] for role in ("client", "server")] == cgroups.paths
        assert all(here in end["programs"] for end in explained["ends"].values())
        assert explained["incompatible"] == []


def test_ends_behind_a_redirect_and_in_two_namespaces_are_joined(
    explainer: Explainer, cgroups: Cgroups
) -> None:
    with two_pods(cgroups) as pods, pods.server.listen("0.0.0.0") as listener:
        port = listener.getsockname()[1]
        netfilter.redirect_inbound(pods.server.namespace, UNASSIGNED_PORT, port)
        with open_connection(pods.client, listener, pods.address4, UNASSIGNED_PORT) as connection:
            connection.exchange()
            ends = explainer.explained(connection)["ends"]
            assert ends["client"]["remote"] == f"{pods.address4}:{UNASSIGNED_PORT}"
            assert ends["server"]["local"] == f"{pods.address4}:{port}"
            assert ends["client"]["network_namespace"] != ends["server"]["network_namespace"]


def test_a_process_is_explained_by_its_number_and_all_by_none(explainer: Explainer, live: Connection) -> None:
    address = "{}:{}".format(*live.client.socket.getsockname()[:2])
    assert f"{address} -> " in explainer.call("explain", str(os.getpid()))
    assert f"{address} -> " in explainer.call("explain", "--all")


# ---- who is at the ends ----


def test_an_end_in_a_cgroup_that_is_not_opted_in_is_named(explainer: Explainer, cgroups: Cgroups) -> None:
    with (
        TestCgroup("elsewhere") as elsewhere,
        one_pod(Cgroups(cgroups.client, elsewhere)) as pod,
        connected(pod.client, pod.server, pod.address4) as connection,
    ):
        moved = connection.exchange()
        explained = explainer.explained(connection)
        assert explained["cause"] == "not_opted_in"
        assert explained["sentence"].endswith(f"in cgroup {elsewhere.relative_path}")
        assert cgroups.client.relative_path not in explained["sentence"]
        assert explained["ends"]["server"]["opted_in_by"] is None
        assert explained["bytes"] == {"redirected": 0, "tcp": moved}


def test_a_peer_that_no_namespace_of_this_node_has_is_on_another_node(
    explainer: Explainer, cgroups: Cgroups
) -> None:
    """A namespace without a process is as far away as another node."""
    with (
        TestCgroup("elsewhere") as elsewhere,
        namespaces("client", "far") as (first, second),
        contextlib.ExitStack() as left,
    ):
        connect(Attachment(first, WIRE, ("10.77.0.1/24",)), Attachment(second, WIRE, ("10.77.0.2/24",)))
        with SocketMaker(second, elsewhere) as server:
            listener = left.enter_context(server.listen("10.77.0.2"))
        client = left.enter_context(SocketMaker(first, cgroups.client))
        connection = left.enter_context(open_connection(client, listener, "10.77.0.2"))
        moved = connection.exchange()
        explained = explainer.explained(connection)
        assert explained["cause"] == "other_node"
        assert explained["sentence"] == f"its peer 10.77.0.2:{listener.getsockname()[1]} is on another node"
        assert list(explained["ends"]) == ["here"]
        assert explained["bytes"] == {"redirected": 0, "tcp": moved}


def test_a_peer_that_has_closed_is_no_other_node(explainer: Explainer, live: Connection) -> None:
    live.server.socket.close()
    assert live.client.receive_rest() > 0
    assert explainer.cause(live) == "peer_closed"


def test_sequence_numbers_that_a_synproxy_rewrites_are_found_out(
    explainer: Explainer, cgroups: Cgroups
) -> None:
    with routed(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        proxy_handshakes(topology.router)
        with open_connection(topology.client, listener, topology.address4) as connection:
            connection.exchange()
            explained = explainer.explained(connection)
            assert explained["cause"] == "sequence_rewritten"
            assert explained["bytes"]["redirected"] == 0


def proxy_handshakes(router: NetworkNamespace) -> None:
    """Have a router answer handshakes itself, as firewalls do against floods of them."""
    rules = """
        table ip proxy {
            chain raw { type filter hook prerouting priority raw; tcp flags syn / syn,ack notrack; }
            chain forward {
                type filter hook forward priority filter;
                ct state invalid,untracked meta l4proto tcp synproxy mss 1460 wscale 7 timestamp sack-perm
                ct state invalid drop
            }
        }
    """
    router.run(["nft", "-f", "-"], standard_input=rules)
    router.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")


def test_multipath_tcp_is_named(explainer: Explainer, topology: Topology) -> None:
    with (
        topology.server.listen("0.0.0.0", protocol=MULTIPATH) as listener,
        Connection(
            topology.client.connect(topology.address4, listener.getsockname()[1], protocol=MULTIPATH),
            accept(listener),
        ) as connection,
    ):
        connection.exchange()
        assert explainer.cause(connection) == "multipath"


# ---- what a message waits for ----


def test_bytes_that_wait_for_order_are_counted_until_they_are_read(
    explainer: Explainer, live: Connection
) -> None:
    explainer.node.switch_live(Mode.OFF)
    live.client.send(1000)
    explainer.node.switch_live(Mode.ON)
    live.client.send(234)
    explained = explainer.explained(live)
    address = "{}:{}".format(*live.client.socket.getsockname()[:2])
    assert explained["cause"] == "order"
    assert explained["sentence"] == (
        f"from {address}: waits for order: 1234 bytes that went by TCP are not read yet"
    )
    live.server.receive(1234)
    assert explainer.cause(live) == "resumes"
    live.client.send(1)
    live.server.receive(1)
    assert explainer.cause(live) == "redirected"


def test_a_stream_of_small_writes_is_told_while_and_after_it_is_handed_back(
    explainer: Explainer, live: Connection
) -> None:
    live.client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    for _ in range(STREAM_WRITES):
        live.client.send(SMALL_WRITE)
    live.server.receive(STREAM_WRITES * SMALL_WRITE)
    assert explainer.cause(live) == "redirected"
    live.client.send(SMALL_WRITE)
    assert explainer.cause(live) == "stream"
    live.server.receive(SMALL_WRITE)
    wait_until(lambda: handed_back(explainer.node, live), "the stream's sockets handed back")
    explained = explainer.explained(live)
    assert explained["cause"] == "stream"
    assert not explained["redirected"]
    assert "handed back to TCP, as streams of small writes  " in explainer.call("status")


def handed_back(node: Sockops, connection: Connection) -> bool:
    """Send something, since acknowledgements do the work; return whether no socket is left in the table."""
    connection.exchange(1)
    return node.live_sockets() == 0


# ---- switches and settings ----


def test_off_is_told_with_who_holds_it(explainer: Explainer, cgroups: Cgroups, live: Connection) -> None:
    explainer.node.switch(Mode.OFF)
    explained = explainer.explained(live)
    assert explained["cause"] == "node_off"
    assert "held by an operator; lift with: meshaccel on sockops" in explained["sentence"]
    explainer.node.switch(Mode.ON)
    present(explainer.node, cgroups.paths, mode="off")
    explained = explainer.explained(live)
    assert explained["cause"] == "node_off"
    assert explained["sentence"].endswith("as the playbook wishes")


def test_a_cgroup_that_is_off_is_named_with_how_to_lift_it(
    explainer: Explainer, cgroups: Cgroups, live: Connection
) -> None:
    path = cgroups.server.relative_path
    explainer.node.switch(Mode.OFF, path)
    explained = explainer.explained(live)
    assert explained["cause"] == "cgroup_off"
    assert explained["sentence"] == (
        f"sockops is off for cgroup {path}, "
        f"held by an operator; lift with: meshaccel on sockops --cgroup {path}"
    )


@pytest.mark.parametrize("of_cgroup", [False, True], ids=["node", "cgroup"])
def test_drain_holds_for_new_connections_only(
    explainer: Explainer, cgroups: Cgroups, topology: Topology, live: Connection, *, of_cgroup: bool
) -> None:
    explainer.node.switch(Mode.DRAIN, cgroups.client.relative_path if of_cgroup else None)
    with connected(topology.client, topology.server, topology.address4) as connection:
        connection.exchange()
        explained = explainer.explained(connection)
        assert explained["cause"] == ("opened_while_off" if of_cgroup else "drain")
    assert explainer.cause(live) == "redirected"


def test_what_was_given_back_when_switched_off_is_told_so(explainer: Explainer, live: Connection) -> None:
    explainer.call("off", "sockops")
    explainer.call("on", "sockops")
    assert explainer.cause(live) == "released"


# ---- what programs do with accelerated sockets ----


@pytest.mark.parametrize(
    ("level", "option", "value", "use"),
    [
        pytest.param(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 5, "low_water_mark", id="rcvlowat"),
        pytest.param(socket.SOL_SOCKET, SO_ZEROCOPY, 1, "zero_copy", id="zerocopy"),
        pytest.param(socket.IPPROTO_TCP, socket.TCP_CORK, 1, "cork", id="cork"),
    ],
)
def test_options_that_do_not_go_together_with_it_are_named(
    explainer: Explainer, live: Connection, level: int, option: int, value: int, use: str
) -> None:
    live.server.socket.setsockopt(level, option, value)
    (found,) = explainer.explained(live)["incompatible"]
    assert found["use"] == use
    assert f"(process {os.getpid()})" in found["program"]
    port = live.client.socket.getsockname()[1]
    lines = explainer.call("explain", str(port)).splitlines()
    assert f"incompatible, at 1 of them: {found['sentence']}" in lines


def test_urgent_data_by_tcp_is_seen(explainer: Explainer, live: Connection) -> None:
    explainer.node.switch_live(Mode.OFF)
    live.client.socket.send(b"!", socket.MSG_OOB)
    uses = {each["use"] for each in explainer.explained(live)["incompatible"]}
    assert uses == {"urgent"}


def test_a_thread_that_waits_for_all_is_seen_at_its_socket(
    explainer: Explainer, topology: Topology, live: Connection
) -> None:
    with connected(topology.client, topology.server, topology.address4, seed=2) as other:
        waiting = threading.Thread(target=live.server.socket.recv, args=(1000, socket.MSG_WAITALL))
        waiting.start()
        try:
            wait_until(lambda: uses_of(explainer, live) == ["wait_all"], "the waiting thread is seen")
            assert uses_of(explainer, other) == []
        finally:
            live.client.socket.close()
            waiting.join()


def test_pipes_to_oneself_are_a_hint_of_splice(explainer: Explainer, live: Connection) -> None:
    assert uses_of(explainer, live) == []
    pipes = [end for _ in range(2) for end in os.pipe()]
    try:
        assert set(uses_of(explainer, live)) == {"perhaps_splice"}
    finally:
        for end in pipes:
            os.close(end)


def uses_of(explainer: Explainer, connection: Connection) -> list[str]:
    """Return the incompatible uses that are named for a connection."""
    return [each["use"] for each in explainer.explained(connection)["incompatible"]]
