"""What sockops did with traffic, by its own counters and by the kernel's TCP."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from meshaccel.accelerators.sockops.observe import Places
from tests.kernel.topologies import one_pod
from tests.support import bpftool, tcp_view
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups, Topology
    from tests.support.connections import Connection

POLL_SECONDS = 0.01
Counters = dict[str, int]


def counters(node: Sockops, cgroup: str | None = None) -> Counters:
    """Return the counters of the node, or of one of its cgroups, as they are now."""
    status = node.status()
    found = status["counters"] if cgroup is None else status["cgroups"][cgroup]["counters"]
    return dict(found)


class Counted:
    """Counts from where it was made on: `counted["redirected_bytes"]` is what came since."""

    def __init__(self, node: Sockops, cgroup: str | None = None) -> None:
        """Take the counters as they are as the beginning."""
        self._node = node
        self._cgroup = cgroup
        self._before = counters(node, cgroup)

    def __getitem__(self, name: str) -> int:
        return counters(self._node, self._cgroup)[name] - self._before[name]

    def all(self) -> Counters:
        """Return every counter that moved."""
        now = counters(self._node, self._cgroup)
        return {name: now[name] - self._before[name] for name in now if now[name] != self._before[name]}


def bytes_by_tcp(topology: Topology, connection: Connection) -> int:
    """Return how many bytes the kernel's TCP carried, both ways, as ss has it."""
    return tcp_view.bytes_sent(topology.client.namespace, connection.client.socket) + tcp_view.bytes_sent(
        topology.server.namespace, connection.server.socket
    )


def assert_redirected(node: Sockops, topology: Topology, connection: Connection) -> None:
    """Exchange checked data; every byte has to go socket to socket and none by TCP."""
    before = bytes_by_tcp(topology, connection)
    counted = Counted(node)
    moved = connection.exchange()
    assert counted["redirected_bytes"] == moved
    assert counted["tcp_bytes"] == 0
    assert bytes_by_tcp(topology, connection) == before


def assert_accelerates(node: Sockops, cgroups: Cgroups) -> None:
    """A connection that is opened now, within a pod of its own, is accelerated."""
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(node, topology, connection)


def assert_by_tcp(node: Sockops, topology: Topology, connection: Connection) -> None:
    """Exchange checked data; every byte has to go by TCP."""
    before = bytes_by_tcp(topology, connection)
    counted = Counted(node)
    moved = connection.exchange()
    assert counted["redirected_bytes"] == 0
    assert bytes_by_tcp(topology, connection) - before == moved


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll until a condition holds; raises TimeoutError naming `what` when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {seconds} s")
        time.sleep(POLL_SECONDS)


def assert_tables_empty(node: Sockops) -> None:
    """No socket is tracked once the last connection has gone; the kernel closes them in its time."""
    wait_until(lambda: node.live_sockets() == 0, "no socket of sockops left")
    assert node.status()["connections"] == 0
    wait_until(lambda: not socket_slots(node), "every slot given up")


def socket_slots(node: Sockops) -> dict[int, int]:
    """Return the slots that are taken, from 0 on, with the cookies of their sockets."""
    return bpftool.socket_map(Path(Places.of(node.paths).map("socket_slots")))
