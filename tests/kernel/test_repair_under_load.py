"""Pins that vanish under load cost no byte: what was redirected is read, what follows goes by TCP."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.observe import Places
from tests.kernel.inventory import KERNEL_FREES_SECONDS
from tests.kernel.load import running_load
from tests.kernel.observation import Counted, wait_until
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshaccel.accelerators.sockops.service import Sockops

QUEUED_BYTES = 600_000


def remove_every_pin(node: Sockops) -> None:
    """What `rm -rf` of the pins does."""
    shutil.rmtree(node.paths.pins)


def remove_socket_table(node: Sockops) -> None:
    """The table that holds the live sockets."""
    Path(Places.of(node.paths).map("sockets")).unlink()


def remove_logic_table(node: Sockops) -> None:
    """The table through which every message's program is called."""
    Path(Places.of(node.paths).map("message_logic")).unlink()


@pytest.mark.parametrize("remove", [remove_every_pin, remove_socket_table])
def test_pins_removed_under_load(
    own_node: Sockops, own_cgroups: Cgroups, remove: Callable[[Sockops], None]
) -> None:
    with one_pod(own_cgroups) as topology, running_load(topology, own_cgroups) as load:
        load.await_round()
        counted = Counted(own_node)
        wait_until(lambda: counted["redirected_bytes"] > 0, "messages redirected")
        remove(own_node)
        assert own_node.restore().changed
        load.await_round()


@pytest.mark.parametrize("remove", [remove_every_pin, remove_socket_table, remove_logic_table])
def test_unread_bytes_outlive_their_pins(
    own_node: Sockops, own_cgroups: Cgroups, remove: Callable[[Sockops], None]
) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.exchange()
        connection.client.send(QUEUED_BYTES)
        connection.server.send(QUEUED_BYTES)
        remove(own_node)
        own_node.restore()
        time.sleep(KERNEL_FREES_SECONDS)
        connection.client.send(1000)
        connection.server.receive(QUEUED_BYTES + 1000)
        connection.client.receive(QUEUED_BYTES)
        connection.exchange()
        connection.bulk(1_000_000)
