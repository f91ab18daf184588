"""ipvs_bpf where something runs out, goes away or comes back: flows stay conntrack's rather than break."""

from __future__ import annotations

import errno
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.ipvs import loads, talk
from tests.ipvs.cluster import CLUSTER_ADDRESS, NODE_PORT, SERVICE_PORT, cluster
from tests.ipvs.director import AcceleratedDirector, accelerated_director
from tests.ipvs.lab import Lab
from tests.ipvs.observation import tracked_flows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ipvs.lab import Host

FAST_PATH = pytest.mark.parametrize("fast_path", [False, True], ids=["slow", "fast"])
#: A SYN is sent again after a second, and after two more (RFC 6298, 2.1 and 5.5).
RETRY_SECONDS, ONE_RETRY_SECONDS = 0.9, 2.5
TIMEOUT_SECONDS = 8
REFRESH_SECONDS = 2.0
SLACK_SECONDS = 2.5
REPEATED_PORT = 40_000
#: SO_LINGER: closed at once, by a reset.
RESET = struct.pack("ii", 1, 0)
HTTP_PORT_OFFSET = 1
FEW_PORTS = range(1024, 1034)


@pytest.fixture(scope="module")
def director() -> Iterator[AcceleratedDirector]:
    """A director of a cluster with an echo, and behind the next port nginx; each test converges."""
    with (
        Lab.running() as lab,
        loads.echo_and_sink(lab.backends),
        loads.nginx(lab.backends[0], "one"),
        loads.nginx(lab.backends[1], "two"),
        accelerated_director(lab, follow="kube_proxy") as made,
    ):
        cluster(lab, loads.ECHO_PORT, loads.HTTP_PORT).start(lab.director)
        yield made


def timed(action: Callable[[], socket.socket]) -> tuple[socket.socket, float]:
    """Return a connection, and how many seconds it took."""
    begun = time.monotonic()
    made = action()
    return made, time.monotonic() - begun


def test_in_a_full_table_sessions_live_and_new_flows_are_conntrack_s(director: AcceleratedDirector) -> None:
    """Of one that finds room for a part of itself the first packet is lost, and sent again."""
    lab = director.lab
    node = (lab.client.gateway4, NODE_PORT)
    with talk.connected(lab.client, *node) as before:
        # Its port may have to be reserved, which then takes a part of the room for four.
        director.converge(maximum_sessions=4)
        timings = [timed(lambda: talk.connect(lab.client, *node)) for _ in range(12)]
        opened = [connection for connection, _ in timings]
        for _ in range(2):
            assert all(talk.answers(connection) for connection in [*before, *opened])
        taken = len([session for session in director.sessions() if session.backend])
        assert taken in (3, 4)
        tracked = tracked_flows(lab.director, [lab.client.address4])
        assert len([line for line in tracked if "ESTABLISHED" in line]) == 1 + 12 - taken
        seconds = [each for _, each in timings]
        assert max(seconds) < ONE_RETRY_SECONDS
        assert sum(each > RETRY_SECONDS for each in seconds) <= 1
        for connection in opened:
            connection.close()


def test_without_source_ports_new_flows_are_conntrack_s(director: AcceleratedDirector) -> None:
    """The first packet of each is lost, and sent again."""
    lab = director.lab
    director.converge(source_addresses={"*": {"ports": f"{FEW_PORTS[0]}-{FEW_PORTS[-1]}"}})
    with ThreadPoolExecutor(50) as clients:
        made = [
            clients.submit(timed, lambda: talk.connect(lab.client, lab.client.gateway4, NODE_PORT))
            for _ in range(50)
        ]
        timings = [each.result() for each in made]
    assert max(taken for _, taken in timings) < ONE_RETRY_SECONDS
    assert all(talk.answers(connection) for connection, _ in timings)
    ports = [session.request.new_source_port for session in director.sessions()]
    # At either backend, of which some are not found in five tries.
    assert len(FEW_PORTS) <= sum(port in FEW_PORTS for port in ports) <= 2 * len(FEW_PORTS)
    for connection, _ in timings:
        connection.close()


@FAST_PATH
@pytest.mark.parametrize("followed", [True, False], ids=["followed", "unfollowed"])
def test_a_backend_whose_device_goes_and_comes_back(
    director: AcceleratedDirector, *, followed: bool, fast_path: bool
) -> None:
    lab = director.lab
    backend, other = lab.backends
    node = (lab.client.gateway4, NODE_PORT)
    director.converge(fast_path=fast_path)
    with talk.connected(lab.client, *node, 2):
        lab.remove_host(backend)
        if followed:
            native = director.converge(fast_path=fast_path).native
            assert f"no route leads to {backend.address4}" in native[f"tcp {node[0]}:{NODE_PORT}"]
        lab.restore_host(backend)
        # IPVS asks both in turn; of the one whose device is not known yet, nothing is expected.
        assert True in [talk.reaches(lab.client, *node) for _ in range(2)]
        director.converge(fast_path=fast_path)
        assert all(talk.reaches(lab.client, *node) for _ in range(4))
        with talk.connected(lab.client, *node, 2):
            pass
    assert {session.backend for session in director.sessions() if session.backend} >= {
        (backend.address4, loads.ECHO_PORT),
        (other.address4, loads.ECHO_PORT),
    }


# ---- a client that uses a port again ----


def connect_again(host: Host, address: str, port: int) -> socket.socket:
    """Connect from REPEATED_PORT as soon as the client itself is done with the connection before."""
    deadline = time.monotonic() + talk.SECONDS
    while True:
        try:
            return talk.connect(host, address, port, source_port=REPEATED_PORT)
        except OSError as error:
            # Its last FIN is not acknowledged yet; that counts as waiting, too.
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
            time.sleep(talk.PAUSE_SECONDS / 10)


def finish(host: Host, address: str, port: int) -> None:
    """Ask nginx, which closes the connection first and remembers it."""
    with connect_again(host, address, port) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b""
        while part := connection.recv(4096):
            received += part
    assert b"200 OK" in received


def reset(host: Host, address: str, port: int) -> None:
    """Ask nginx, and break the connection off."""
    with connect_again(host, address, port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")
        assert b"200 OK" in connection.recv(4096)


def repeat(action: Callable[[Host, str, int], None], lab: Lab, times: int) -> dict[str, Any]:
    """Do something so many times; returns how long the slowest took, and every error."""
    slowest, errors = 0.0, []
    begun = time.monotonic()
    for number in range(times):
        one = time.monotonic()
        try:
            action(lab.client, CLUSTER_ADDRESS[4], SERVICE_PORT + HTTP_PORT_OFFSET)
        except (OSError, AssertionError) as error:
            errors.append(f"{number}: {error!r}")
        slowest = max(slowest, time.monotonic() - one)
    return {"slowest": slowest, "errors": errors, "seconds": time.monotonic() - begun}


@pytest.mark.parametrize(("action", "times"), [(finish, 500), (reset, 100)])
def test_a_client_that_uses_its_port_again_at_once(
    director: AcceleratedDirector, action: Callable[[Host, str, int], None], times: int
) -> None:
    director.converge(mode="native")
    found = {"native": repeat(action, director.lab, times // 2)}
    for name, fast_path in (("slow", False), ("fast", True)):
        director.converge(fast_path=fast_path)
        found[name] = repeat(action, director.lab, times)
    print(f"{action.__name__} {times} times:", found)
    for name in ("slow", "fast"):
        assert found[name]["errors"] == [], found
        assert found[name]["slowest"] < 1.0, found


# ---- a backend that is taken out ----


@FAST_PATH
def test_connections_to_a_server_that_is_removed_end(
    director: AcceleratedDirector, *, fast_path: bool
) -> None:
    """As IPVS ends them (expire_nodest_conn), as soon as a packet goes its way again."""
    lab = director.lab
    lab.director.run(["ipvsadm", "--set", *[str(TIMEOUT_SECONDS)] * 3])
    director.converge(fast_path=fast_path)
    node = (lab.client.gateway4, NODE_PORT)
    with talk.connected(lab.client, *node, 2) as connections:
        assert all(talk.lasts(connection, 0.2) >= 0.2 for connection in connections)
        removed = f"{lab.backends[0].address4}:{loads.ECHO_PORT}"
        lab.director.run(["ipvsadm", "-d", "-t", f"{node[0]}:{NODE_PORT}", "-r", removed])
        with ThreadPoolExecutor(2) as clients:
            longest = REFRESH_SECONDS + SLACK_SECONDS
            lasted = sorted(clients.map(lambda each: talk.lasts(each, longest), connections))
    assert lasted[0] < (longest - 0.5 if fast_path else SLACK_SECONDS)
    assert lasted[1] >= longest
    assert all(talk.reaches(lab.client, *node) for _ in range(4))
    lab.director.run(["ipvsadm", "-a", "-t", f"{node[0]}:{NODE_PORT}", "-r", removed, "-m"])
