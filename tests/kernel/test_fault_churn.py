"""Connections come and go by the thousand while sockops is switched: none fails, none stays behind."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.observe import Places
from meshaccel.model import Mode
from tests.kernel.fault_state import ask_bpftool
from tests.kernel.installations import present
from tests.kernel.load import run_client, server
from tests.kernel.observation import (
    Counted,
    assert_accelerates,
    assert_redirected,
    assert_tables_empty,
    wait_until,
)
from tests.kernel.topologies import one_pod
from tests.support.background import repeating
from tests.support.connections import connected
from tests.support.mesh_load import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups, Topology

pytestmark = pytest.mark.machine
PORT = 7004
CONNECTIONS = 10_000
CYCLES = 4
#: One message, and several with an answer of several; each worker has its own.
CLIENTS = (
    Client("connect", size=700, connections=4, duration=0.5, verify=True),
    Client("connect", size=90_000, connections=2, duration=0.5, verify=True),
)
FLIPS = 40
FLIP_SECONDS = 0.005
ON_SECONDS = 0.3


def flip(node: Sockops, _: Cgroups) -> None:
    """Back and forth, faster than anybody would, with connections alive from before each time."""
    for number in range(FLIPS):
        node.switch((Mode.OFF, Mode.ON, Mode.DRAIN)[number % 3])
        time.sleep(FLIP_SECONDS)


def give_back(node: Sockops, _: Cgroups) -> None:
    """What `meshaccel off` does."""
    node.switch(Mode.OFF)
    node.release()


def switch_one_cgroup(node: Sockops, cgroups: Cgroups) -> None:
    """One end's cgroup alone, and back."""
    node.switch(Mode.OFF, cgroups.server.relative_path)
    node.release()
    node.switch(Mode.ON, cgroups.server.relative_path)


def leave_and_join(node: Sockops, cgroups: Cgroups) -> None:
    """What a run of the playbook does when a cgroup is taken off the list, and put on it again."""
    present(node, [cgroups.client.relative_path])
    present(node, cgroups.paths)


def adopt(node: Sockops, _: Cgroups) -> None:
    """What `sockops_adopt_existing` does with connections that were opened while it was off."""
    node.switch(Mode.OFF)
    node.release()
    node.switch(Mode.ON)
    node.adopt()


#: What an operator does again and again; after each of them the node is on for a while.
STEPS: Sequence[Callable[[Sockops, Cgroups], None]] = (
    flip,
    give_back,
    adopt,
    switch_one_cgroup,
    leave_and_join,
)


@contextlib.contextmanager
def churning(topology: Topology, cgroups: Cgroups) -> Iterator[Callable[[], int]]:
    """Open and close connections meanwhile, each with a checked exchange; yields what counts them."""
    with server(topology, cgroups, "echo", PORT), contextlib.ExitStack() as workers:
        moved = [
            workers.enter_context(repeating(partial(run_client, topology, cgroups, client, PORT)))
            for client in CLIENTS
        ]
        yield lambda: sum(
            sum(rounds) // (2 * client.size) for client, rounds in zip(CLIENTS, moved, strict=True)
        )


def assert_nothing_in(node: Sockops, names: Sequence[str]) -> None:
    """By bpftool, these maps have no entry any more."""
    pins = [f"map dump pinned {Places.of(node.paths).map(name)}" for name in names]
    wait_until(lambda: ask_bpftool(pins) == [[]] * len(names), f"nothing in {', '.join(names)}")


def test_switches_under_ten_thousand_short_connections(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as lasting,
    ):
        counted = Counted(own_node)
        with churning(topology, own_cgroups) as connections, repeating(lasting.exchange) as exchanges:
            cycles = 0
            while cycles < CYCLES or connections() < CONNECTIONS:
                for step in STEPS:
                    step(own_node, own_cgroups)
                    own_node.switch(Mode.ON)
                    time.sleep(ON_SECONDS)
                cycles += 1
        assert counted["connections_paired"] > 0
        assert counted["skipped_mode"] > 0
        assert exchanges
        adopt(own_node, own_cgroups)
        lasting.exchange()
        assert_redirected(own_node, topology, lasting)
    assert_tables_empty(own_node)
    assert_nothing_in(own_node, ("ends", "sockets"))
    assert_accelerates(own_node, own_cgroups)
