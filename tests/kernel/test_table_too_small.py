"""More connections than the tables hold: the first are accelerated, the others go by TCP, none fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.kernel.observation import (
    Counted,
    assert_by_tcp,
    assert_redirected,
    assert_tables_empty,
    bytes_by_tcp,
    wait_until,
)
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.accelerator import accelerated
from tests.support.cgroups import TestCgroup
from tests.support.connections import Connection, connected, open_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

MAXIMUM = 2
CONNECTIONS = 50


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Sockops]:
    """sockops with room for two connections."""
    with accelerated(cgroups.paths, maximum_connections=MAXIMUM) as sockops:
        yield sockops


def test_connections_beyond_the_table_go_by_tcp(node: Sockops, cgroups: Cgroups) -> None:
    with (
        contextlib.ExitStack() as stack,
        one_pod(cgroups) as topology,
        topology.server.listen("0.0.0.0") as listener,
    ):
        counted = Counted(node)

        def opened(seed: int) -> Connection:
            return stack.enter_context(
                open_connection(topology.client, listener, topology.address4, seed=seed)
            )

        fitting = [opened(seed) for seed in range(MAXIMUM)]
        late = [opened(seed) for seed in range(MAXIMUM, CONNECTIONS)]
        assert counted["connections_paired"] == MAXIMUM
        assert counted["skipped_table_full"] == len(late)
        assert counted["skipped_no_waiting_peer"] == len(late)
        for connection in fitting:
            assert_redirected(node, topology, connection)
        moved = sum(connection.exchange() for connection in late)
        assert sum(bytes_by_tcp(topology, connection) for connection in late) == moved
        assert node.status()["connections"] == MAXIMUM
    assert_tables_empty(node)


def test_a_place_that_is_free_again_is_taken(node: Sockops, cgroups: Cgroups) -> None:
    with one_pod(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        for seed in range(10):
            with contextlib.ExitStack() as stack:
                for other in range(MAXIMUM):
                    connection = stack.enter_context(
                        open_connection(topology.client, listener, topology.address4, seed=seed + other)
                    )
                    assert_redirected(node, topology, connection)
            assert_tables_empty(node)


def test_one_free_place_is_not_enough_for_two_ends(node: Sockops, cgroups: Cgroups) -> None:
    """A client whose server found no room is evicted like any other that waits in vain."""
    with (
        TestCgroup("elsewhere") as elsewhere,
        one_pod(Cgroups(cgroups.client, elsewhere)) as bystanders,
        one_pod(cgroups) as topology,
        connected(bystanders.client, bystanders.server, bystanders.address4),
        connected(topology.client, topology.server, topology.address4, seed=1) as first,
        topology.server.listen("0.0.0.0") as listener,
    ):
        counted = Counted(node)
        with open_connection(topology.client, listener, topology.address4, seed=2) as second:
            assert counted["sockets_inserted"] == 1
            assert counted["skipped_table_full"] == 1
            assert_by_tcp(node, topology, second)
            wait_until(lambda: counted["sockets_evicted"] == 1, "the client evicted")
        assert_redirected(node, topology, first)
    assert_tables_empty(node)
