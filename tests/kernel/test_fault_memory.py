"""Memory runs out where the kernel charges it: a writer waits as with TCP, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.fault_process import SUCCEEDED, run_apart
from tests.kernel.installations import installation
from tests.kernel.observation import Counted, assert_tables_empty
from tests.kernel.topologies import Topology, one_pod
from tests.support.connections import End, connected, open_connection
from tests.support.memory_cgroups import MemoryCgroup, memory_cgroup, tcp_memory_cgroup
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups

#: Less than a single socket may hold unread.
pytestmark = pytest.mark.machine
LITTLE = 1_000_000
#: The kernel forces these upon a group: packets are taken in before they are counted.
FORCED_BYTES = 2 * LITTLE
CONNECTIONS = 6
#: What the kernel says when something has gone wrong in it.
COMPLAINTS = ("WARNING:", "BUG:", "Oops", "refcount_t", "page allocation failure")
TABLE_MEMORY = 64 * 1024 * 1024
#: More connections than the kernel has entries in stock for.
MANY = 600


@pytest.fixture(autouse=True)
def _no_complaint() -> Iterator[None]:
    """The kernel's log gets no line that tells of a defect."""
    before = set(complaints())
    yield
    assert set(complaints()) - before == set()


def complaints() -> list[str]:
    """Return the lines of the kernel's log that tell of a defect."""
    return [line for line in run(["dmesg"]).splitlines() if any(words in line for words in COMPLAINTS)]


@pytest.fixture(params=[Mode.ON, Mode.OFF], ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> Mode:
    """With sockops on, and off: the same holds for both."""
    found: Mode = request.param
    return found


@dataclass(frozen=True)
class Poor:
    """A pod whose client's sockets share little memory."""

    topology: Topology
    group: MemoryCgroup


@pytest.fixture
def poor(own_node: Sockops, own_cgroups: Cgroups, mode: Mode) -> Iterator[Poor]:
    """Such a pod, with sockops in the mode."""
    own_node.switch(mode)
    with tcp_memory_cgroup(LITTLE) as group, one_pod(own_cgroups) as topology:
        for process_id in own_cgroups.client.process_ids():
            group.add(process_id)
        yield Poor(topology, group)


def write_all_it_takes(writer: End, size: int) -> None:
    """Write without blocking until the socket takes no more; any error but EAGAIN is one."""
    writer.socket.setblocking(False)
    try:
        while True:
            sent = writer.socket.send(writer.outgoing.next(size))
            writer.outgoing.back(size - sent)
    except BlockingIOError:
        writer.outgoing.back(size)
    finally:
        writer.socket.setblocking(True)


@pytest.mark.parametrize("size", [500, 16_000, 200_000])
def test_a_writer_is_told_to_wait(poor: Poor, own_node: Sockops, mode: Mode, size: int) -> None:
    topology = poor.topology
    with connected(topology.client, topology.server, topology.address4) as connection:
        counted = Counted(own_node)
        write_all_it_takes(connection.server, size)
        assert poor.group.usage() <= LITTLE + FORCED_BYTES
        assert (counted["redirected_bytes"] > 0) == (mode is Mode.ON)
        connection.client.receive(connection.server.outgoing.position)
        connection.exchange()
        connection.bulk(2_000_000)


def test_connections_that_share_little(poor: Poor) -> None:
    """All of them write at once, blocking; every byte arrives, both ways."""
    topology = poor.topology
    with contextlib.ExitStack() as stack, topology.server.listen("0.0.0.0") as listener:
        opened = [
            stack.enter_context(open_connection(topology.client, listener, topology.address4, seed=seed))
            for seed in range(CONNECTIONS)
        ]
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            list(threads.map(lambda connection: connection.bulk(LITTLE), opened))


def test_the_tables_outlive_the_memory_of_the_run_that_made_them(own_cgroups: Cgroups) -> None:
    """The kernel charges their entries to that run's cgroup; a full one keeps nobody from being paired."""
    with installation() as node, memory_cgroup(TABLE_MEMORY) as group, one_pod(own_cgroups) as topology:
        desired = node.parse({"state": "present", "cgroups": own_cgroups.paths})
        ending = run_apart(
            lambda hook: node.converge(desired, before_action=hook), prelude=lambda: group.add(os.getpid())
        )
        assert ending.exit_code == SUCCEEDED
        full = group.usage()
        group.limit(full)
        counted = Counted(node)
        with contextlib.ExitStack() as stack, topology.server.listen("0.0.0.0") as listener:
            for seed in range(MANY):
                connection = open_connection(topology.client, listener, topology.address4, seed=seed)
                stack.enter_context(connection).exchange(1)
            assert counted["connections_paired"] == MANY
            assert group.usage() > full
        assert_tables_empty(node)
