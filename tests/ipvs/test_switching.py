"""Switching under load, back and forth, and killed on the way: nothing that is open breaks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.ipvs_bpf.layout import ProgramMode
from meshaccel.accelerators.ipvs_bpf.observe import observe_loaded
from tests.ipvs import datagrams, loads
from tests.ipvs.cluster import NODE_PORT, cluster
from tests.ipvs.director import QUICK, AcceleratedDirector, accelerated_director
from tests.ipvs.test_paths import DATAGRAM_PORT, datagram_service
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from meshaccel.model import Action
    from tests.ipvs.lab import Lab

DRAIN_SECONDS = 30
CONNECT_SECONDS = 2.0
WAIT_SECONDS = 900.0


@pytest.fixture
def director(lab: Lab) -> Iterator[AcceleratedDirector]:
    with accelerated_director(lab, follow="kube_proxy", drain_seconds=DRAIN_SECONDS) as made:
        yield made


def switch_twice(director: AcceleratedDirector, between: Callable[[], object]) -> None:
    """Go from native to BPF and back, twice; while it is in BPF, look."""
    for _ in range(2):
        assert director.converge().notes == ()
        time.sleep(1)
        between()
        assert director.converge(mode="native").notes == (), "no session was broken off"


class Connecting:
    """Short connections, one after another, until it is ended; made in a thread of its own."""

    def __init__(self, lab: Lab, address: str, ended: threading.Event) -> None:
        self._lab = lab
        self._address = address
        self._ended = ended
        self.made = 0

    def run(self) -> int:
        """Connect, and return how often; raises what the client does when a connection fails."""
        client = Client("connect", duration=CONNECT_SECONDS)
        while not self._ended.is_set():
            self.made += loads.requests(self._lab.client, client, self._address, NODE_PORT).requests
        return self.made

    def wait_for(self, more: int, running: Future[int]) -> None:
        """Wait until so many more have been made; at once when they have failed."""
        wanted, deadline = self.made + more, time.monotonic() + WAIT_SECONDS
        while self.made < wanted and not running.done():
            assert time.monotonic() < deadline, f"{self.made} connections, not {wanted}"
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("long_connections", "short_connections"), [(10, 100), (40, 20_000)], ids=["some", "many"]
)
@pytest.mark.timeout(2 * WAIT_SECONDS)
def test_short_and_long_connections_outlive_two_switches_there_and_back(
    director: AcceleratedDirector, long_connections: int, short_connections: int
) -> None:
    lab = director.lab
    node = lab.client.gateway(4)
    ended = threading.Event()

    connecting = Connecting(lab, node, ended)
    with contextlib.ExitStack() as resources:
        resources.enter_context(loads.echo_and_sink(lab.backends))
        threads = resources.enter_context(ThreadPoolExecutor(2))
        resources.callback(ended.set)
        cluster(lab, loads.ECHO_PORT).start(lab.director)
        open_before = [
            resources.enter_context(loads.connected(lab.client, node, NODE_PORT))
            for _ in range(long_connections)
        ]
        long = threads.submit(converse, open_before, ended)
        short = threads.submit(connecting.run)
        seen: list[int] = []

        def look() -> None:
            connecting.wait_for(short_connections // 2, short)
            seen.append(len(director.sessions()))

        switch_twice(director, look)
        ended.set()
        assert short.result() >= short_connections
        assert long.result() > long_connections
    assert min(seen) > 0, "there were sessions in BPF"


def converse(connections: Sequence[socket.socket], ended: threading.Event) -> int:
    """Send bytes on each connection in turn and wait for the echo; returns how often.

    Raises TimeoutError or ConnectionError when one is broken, AssertionError when other bytes come back.
    """
    exchanged = 0
    while not ended.is_set():
        for connection in connections:
            sent = os.urandom(100)
            connection.sendall(sent)
            received = b""
            while len(received) < len(sent):
                part = connection.recv(len(sent) - len(received))
                assert part, "the connection was closed"
                received += part
            assert received == sent
            exchanged += 1
    return exchanged


def test_datagrams_outlive_two_switches_there_and_back(director: AcceleratedDirector) -> None:
    lab = director.lab
    ended = threading.Event()

    def ask() -> int:
        asked = 0
        with datagrams.udp_socket(lab.client, 4) as client:
            client.connect((lab.client.gateway(4), NODE_PORT))
            while not ended.is_set():
                datagrams.ask(client, 100)
                asked += 1
        return asked

    datagram_service(lab, 4).start(lab.director)
    # A device that gets its first clsact drops what is being sent by it meanwhile, and keeps it from then on.
    director.converge()
    director.converge(mode="native")
    with datagrams.echo(lab.backends, DATAGRAM_PORT, 4), ThreadPoolExecutor(1) as threads:
        asking = threads.submit(ask)
        try:
            switch_twice(director, lambda: None)
        finally:
            ended.set()
        assert asking.result() > 50


@pytest.mark.parametrize("wish", ["bpf", "native"])
def test_a_switch_that_is_killed_anywhere_is_gone_on_from(director: AcceleratedDirector, wish: str) -> None:
    lab = director.lab
    with loads.nginx(lab.backends[0], "one"), loads.nginx(lab.backends[1], "two"):
        cluster(lab, loads.HTTP_PORT).start(lab.director)
        before = "native" if wish == "bpf" else "bpf"
        director.converge(mode=before)
        kinds = planned(director, wish)
        # Loading and attaching are shown by the tests of plans; here it is the steps that traffic feels.
        felt = [n for n, kind in enumerate(kinds) if kind.partition(".")[2] in FELT]
        assert len(felt) >= 3
        for position in felt:
            assert kill_before(director, wish, position) == signal.SIGKILL
            assert loads.request(lab.client, lab.client.gateway(4), NODE_PORT).split()[0] in ("one", "two")
            assert director.converge(mode=wish).changed
            assert loads.request(lab.client, lab.client.gateway(4), NODE_PORT).split()[0] in ("one", "two")
            director.converge(mode=before)
        director.converge(mode="bpf")
        loaded = observe_loaded(director.service.pins)
        assert loaded is not None
        assert loaded.mode is ProgramMode.ON
        loads.request(lab.client, lab.client.gateway(4), NODE_PORT)
    newest = [session.service.port for session in director.sessions()]
    assert NODE_PORT in newest


#: Steps that traffic feels.
FELT = frozenset({"observe", "reserve", "set_mode", "drain", "nft_table"})


def planned(director: AcceleratedDirector, mode: str) -> list[str]:
    """Return the kinds of action that a wish takes now."""
    with director.inside():
        wish = director.service.parse({**director.settings, **QUICK, "mode": mode})
        return [action.kind for action in director.service.converge(wish, check_mode=True).actions]


def kill_before(director: AcceleratedDirector, mode: str, position: int) -> int:
    """Have a process converge that is killed before its n-th action; return the signal that ended it."""
    child = os.fork()
    if child == 0:
        begun: list[Action] = []

        def end(action: Action) -> None:
            if len(begun) == position:
                os.kill(os.getpid(), signal.SIGKILL)
            begun.append(action)

        try:
            with director.inside():
                wish = director.service.parse({**director.settings, **QUICK, "mode": mode})
                director.service.converge(wish, before_action=end)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
