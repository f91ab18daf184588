"""Taking sockops off a node leaves nothing of it in the kernel, and every connection alive."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import plan
from meshaccel.model import Mode
from tests.kernel.installations import absent, installation, present
from tests.kernel.inventory import KERNEL_FREES_SECONDS, Inventory, assert_untouched, programs_of
from tests.kernel.observation import assert_accelerates, assert_by_tcp, assert_redirected, bytes_by_tcp
from tests.kernel.topologies import Cgroups, one_pod, two_pods
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops

QUEUED_BYTES = 600_000


def test_absent_leaves_nothing_but_the_connections(own_cgroups: Cgroups) -> None:
    with installation() as node, two_pods(own_cgroups) as topology:
        present(node, own_cgroups.paths)
        inventory = Inventory.of(node)
        assert len(inventory.programs) == 5
        assert len(inventory.links) == 2
        assert inventory.remaining() == inventory
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert_redirected(node, topology, connection)
            result = absent(node)
            assert result.changed
            assert result.notes == ()
            assert_untouched(node, own_cgroups)
            inventory.assert_gone()
            assert node.status() == {"state": "absent"}
            before = bytes_by_tcp(topology, connection)
            assert before + connection.exchange() == bytes_by_tcp(topology, connection)
            connection.bulk(2_000_000)
        assert not absent(node).changed


def test_cgroups_that_leave_and_come_back_after_a_switch(own_cgroups: Cgroups) -> None:
    with installation() as node, one_pod(own_cgroups) as topology:
        present(node, own_cgroups.paths)
        assert not present(node, own_cgroups.paths).changed
        with connected(topology.client, topology.server, topology.address4) as connection:
            assert_redirected(node, topology, connection)
            node.switch(Mode.OFF)
            assert_by_tcp(node, topology, connection)
            node.switch(Mode.ON)
            present(node, [own_cgroups.client.relative_path])
            assert programs_of(own_cgroups.server) == []
            assert len(programs_of(own_cgroups.client)) == 1
            present(node, own_cgroups.paths)
            connection.exchange()
        assert_accelerates(node, own_cgroups)


def test_unread_bytes_survive_the_removal(
    own_node: Sockops, own_cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that does not read in time keeps its bytes; the kernel's objects go when it closes."""
    monkeypatch.setattr(plan, "RELEASE_SECONDS", 0.5)
    inventory = Inventory.of(own_node)
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.client.send(QUEUED_BYTES)
        assert bytes_by_tcp(topology, connection) == 0
        (note,) = absent(own_node).notes
        assert note.startswith("1 sockets hold redirected bytes")
        assert_untouched(own_node, own_cgroups)
        time.sleep(KERNEL_FREES_SECONDS)
        assert inventory.remaining().maps
        connection.client.send(1000)
        connection.server.receive(QUEUED_BYTES + 1000)
        connection.exchange()
        connection.bulk(1_000_000)
    inventory.assert_gone()


def test_unread_bytes_at_both_ends_survive_the_removal(
    own_node: Sockops, own_cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "RELEASE_SECONDS", 0.5)
    inventory = Inventory.of(own_node)
    with one_pod(own_cgroups) as topology:
        with connected(topology.client, topology.server, topology.address4) as connection:
            connection.client.send(QUEUED_BYTES)
            connection.server.send(QUEUED_BYTES)
            (note,) = absent(own_node).notes
            assert note.startswith("2 sockets hold redirected bytes")
            time.sleep(KERNEL_FREES_SECONDS)
            connection.server.receive(QUEUED_BYTES)
            connection.client.receive(QUEUED_BYTES)
            connection.exchange()
        inventory.assert_gone()


def test_a_socket_that_closes_unread_after_the_removal(
    own_node: Sockops, own_cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's objects go with it, and so do its bytes."""
    monkeypatch.setattr(plan, "RELEASE_SECONDS", 0.0)
    inventory = Inventory.of(own_node)
    with one_pod(own_cgroups) as topology:
        with connected(topology.client, topology.server, topology.address4) as connection:
            connection.client.send(QUEUED_BYTES)
            absent(own_node)
            assert inventory.remaining().maps
        inventory.assert_gone()


def test_a_reader_that_reads_late_is_waited_for(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """The release ends as soon as the last reader has read."""
    inventory = Inventory.of(own_node)
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        ThreadPoolExecutor(1) as thread,
    ):
        connection.client.send(QUEUED_BYTES)
        removing = thread.submit(absent, own_node)
        while not removing.done() and connection.server.incoming.position < QUEUED_BYTES:
            connection.server.receive(QUEUED_BYTES // 100)
        assert removing.result().notes == ()
        inventory.assert_gone()
        connection.exchange()


def test_an_idle_connection_lives_through_several_installations(own_cgroups: Cgroups) -> None:
    with one_pod(own_cgroups) as topology, installation() as node:
        present(node, own_cgroups.paths)
        with connected(topology.client, topology.server, topology.address4) as connection:
            for _ in range(2):
                connection.exchange()
                absent(node)
                connection.exchange()
                present(node, own_cgroups.paths)
                assert_by_tcp(node, topology, connection)


def test_a_cgroup_removed_while_attached(own_cgroups: Cgroups) -> None:
    with installation() as node:
        with TestCgroup("short-lived") as third:
            present(node, [*own_cgroups.paths, third.relative_path])
        assert any(name.startswith("gone") for name in node.status()["cgroups"])
        assert_accelerates(node, own_cgroups)
        assert present(node, own_cgroups.paths).changed
        assert set(node.status()["cgroups"]) == set(own_cgroups.paths)
        assert not present(node, own_cgroups.paths).changed


def test_a_cgroup_removed_and_made_again_is_another(own_cgroups: Cgroups) -> None:
    """Same path, other cgroup: the wish is for the one that is there now."""
    with installation() as node:
        third = TestCgroup("again")
        with third:
            present(node, [*own_cgroups.paths, third.relative_path])
        with third:
            assert present(node, [*own_cgroups.paths, third.relative_path]).changed
            assert len(programs_of(third)) == 1
            assert_accelerates(node, Cgroups(third, own_cgroups.server))
            present(node, own_cgroups.paths)


def test_removal_after_every_cgroup_has_gone() -> None:
    with installation() as node:
        with TestCgroup("one") as one, TestCgroup("other") as other:
            present(node, [one.relative_path, other.relative_path])
            inventory = Inventory.of(node)
        assert absent(node).changed
        inventory.assert_gone()
        assert not Path(node.paths.bpffs).is_mount()
