"""Switching, updating, replacing and removing under load: nothing is lost, reordered or broken."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel import compiled
from tests.kernel.installations import absent, installation, present
from tests.kernel.load import SHORT_CONNECTIONS, Load, run_client, running_load, server
from tests.kernel.observation import (
    Counted,
    assert_accelerates,
    assert_by_tcp,
    assert_redirected,
    bytes_by_tcp,
    counters,
    wait_until,
)
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.background import repeating
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from meshaccel.accelerators.sockops.service import Sockops

CONNECTION_PROGRAM = "meshaccel_connection"[:15]
"""Some versions of bpftool show the 15 characters that the kernel keeps, some the whole name."""
BYTES_UNDER_LOAD = 2_000_000_000
CYCLES = 2
PORT = 7003


@pytest.fixture(scope="module")
def marked_object() -> Path:
    """Another version of sockops."""
    return compiled.variant(compiled.MARKED_MESSAGES)


def await_rounds(rounds: Sequence[object], number: int) -> None:
    """Wait until so many more rounds of something have ended."""
    wanted = len(rounds) + number
    wait_until(lambda: len(rounds) >= wanted, f"{number} more rounds")


def await_counter(node: Sockops, name: str) -> None:
    """Wait until traffic took this way."""
    before = counters(node)[name]
    wait_until(lambda: counters(node)[name] > before, f"{name} moves", 30.0)


def cycle(node: Sockops, cgroups: Cgroups, marked: Sockops, load: Load) -> None:
    """Every switch there is, each while connections of before it live on."""
    node.switch(Mode.OFF)
    load.await_round()
    counted = Counted(node)
    load.await_round()
    assert counted["redirected_messages"] == 0
    node.release()
    node.switch(Mode.ON)
    await_counter(node, "redirected_messages")
    node.switch(Mode.DRAIN)
    load.await_round()
    node.switch(Mode.ON)
    await_counter(node, "redirected_messages")
    assert present(marked, cgroups.paths).changed
    await_counter(node, "redirected_messages")
    assert present(node, cgroups.paths).changed
    assert present(node, cgroups.paths, maximum_connections=1000).changed
    await_counter(node, "redirected_messages")
    assert absent(node).notes == ()
    load.await_round()
    assert present(node, cgroups.paths).changed
    await_counter(node, "redirected_messages")


@pytest.mark.machine
@pytest.mark.timeout(180)
def test_every_switch_under_some_gigabytes_of_checked_load(
    own_node: Sockops, own_cgroups: Cgroups, marked_object: Path
) -> None:
    node = own_node
    marked = replace(node, object_path=str(marked_object))
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as oldest,
        running_load(topology, own_cgroups) as load,
        repeating(lambda: oldest.bulk(500_000)) as rounds,
    ):
        cycles = 0
        while cycles < CYCLES or load.bytes() < BYTES_UNDER_LOAD:
            cycle(node, own_cgroups, marked, load)
            cycles += 1
            await_rounds(rounds, 2)


def test_off_and_on_again(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(own_node, topology, connection)
        own_node.switch(Mode.OFF)
        assert_by_tcp(own_node, topology, connection)
        with connected(topology.client, topology.server, topology.address4) as opened_while_off:
            own_node.switch(Mode.ON)
            assert_redirected(own_node, topology, connection)
            assert_by_tcp(own_node, topology, opened_while_off)


def test_connections_given_back_are_plain_ones(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """Released after a switch to off: no program sees them any more, also when it is on again."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(own_node, topology, connection)
        own_node.switch(Mode.OFF)
        assert own_node.release() == ()
        assert own_node.live_sockets() == 0
        own_node.switch(Mode.ON)
        counted = Counted(own_node)
        connection.exchange()
        connection.bulk(2_000_000)
        assert counted.all() == {}
        assert_accelerates(own_node, own_cgroups)


def test_a_connection_given_back_at_one_end_only(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """The other end has not read yet, so it stays; its own messages find nobody to go to."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        connection.client.send(500_000)
        own_node.switch(Mode.OFF)
        (note,) = own_node.release()
        assert note.startswith("1 sockets hold redirected bytes")
        own_node.switch(Mode.ON)
        connection.client.send(1_000)
        connection.server.send(1_000)
        connection.server.receive(501_000)
        connection.client.receive(1_000)
        assert_by_tcp(own_node, topology, connection)
        connection.bulk(2_000_000)


def test_drain_finishes_what_there_is_and_takes_nothing_new(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as old,
    ):
        assert_redirected(own_node, topology, old)
        own_node.switch(Mode.DRAIN)
        with connected(topology.client, topology.server, topology.address4) as new:
            assert_redirected(own_node, topology, old)
            assert_by_tcp(own_node, topology, new)
            assert own_node.live_sockets() == 2
            own_node.switch(Mode.ON)
            assert_by_tcp(own_node, topology, new)


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.DRAIN])
def test_one_cgroup_is_switched_alone(own_node: Sockops, own_cgroups: Cgroups, mode: Mode) -> None:
    with TestCgroup("third") as third, TestCgroup("fourth") as fourth:
        others = Cgroups(third, fourth)
        present(own_node, [*own_cgroups.paths, *others.paths])
        with (
            one_pod(own_cgroups) as topology,
            one_pod(others) as other_topology,
            connected(topology.client, topology.server, topology.address4) as old,
            connected(other_topology.client, other_topology.server, "127.0.0.1") as other,
        ):
            own_node.switch(mode, own_cgroups.server.relative_path)
            check = assert_by_tcp if mode is Mode.OFF else assert_redirected
            check(own_node, topology, old)
            with connected(topology.client, topology.server, topology.address4) as new:
                assert_by_tcp(own_node, topology, new)
            assert_redirected(own_node, other_topology, other)
            own_node.switch(Mode.ON, own_cgroups.server.relative_path)
            assert_redirected(own_node, topology, old)


def test_an_update_reaches_live_connections(
    own_node: Sockops, own_cgroups: Cgroups, marked_object: Path
) -> None:
    marked = replace(own_node, object_path=str(marked_object))
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        assert redirected_messages(own_node, live.exchange) == 40
        assert present(marked, own_cgroups.paths).changed
        assert redirected_messages(own_node, live.exchange) == 40 * compiled.MARK
        assert_redirected(own_node, topology, live)
        assert present(own_node, own_cgroups.paths).changed
        assert redirected_messages(own_node, live.exchange) == 40
        assert bytes_by_tcp(topology, live) == 0


def redirected_messages(node: Sockops, traffic: Callable[[], object]) -> int:
    """Return how many messages of some traffic were redirected, as the program counts them."""
    counted = Counted(node)
    traffic()
    return counted["redirected_messages"]


def attached_programs(cgroups: Cgroups) -> list[int]:
    """Return how many programs of ours bpftool finds attached to each of the cgroups."""
    return [
        sum(item["name"][:15] == CONNECTION_PROGRAM for item in json.loads(shown or "[]"))
        for cgroup in (cgroups.client, cgroups.server)
        for shown in [run(["bpftool", "-j", "cgroup", "show", str(cgroup.path)])]
    ]


def test_an_update_leaves_no_moment_unattached(own_cgroups: Cgroups, marked_object: Path) -> None:
    """Every connection opened meanwhile is paired, and whenever bpftool looks, a program is there."""
    with installation() as node, one_pod(own_cgroups) as topology:
        present(node, own_cgroups.paths)
        marked = replace(node, object_path=str(marked_object))
        with (
            server(topology, own_cgroups, "echo", PORT),
            repeating(lambda: attached_programs(own_cgroups)) as samples,
            repeating(lambda: run_client(topology, own_cgroups, SHORT_CONNECTIONS, PORT)) as rounds,
        ):
            for _ in range(5):
                present(marked, own_cgroups.paths)
                present(node, own_cgroups.paths)
            await_rounds(rounds, 1)
        found = counters(node)
        assert found["connections_paired"] * 2 == found["sockets_inserted"]
        assert found["connections_paired"] > 100
        assert found["skipped_no_waiting_peer"] == 0
        assert found["skipped_duplicate"] == 0
        assert len(samples) > 10
        assert {number for sample in samples for number in sample} <= {1, 2}


def test_an_update_passes_over_a_cgroup_that_is_gone(own_cgroups: Cgroups, marked_object: Path) -> None:
    """Pods come and go: the kernel takes no other program for what is attached nowhere."""
    with installation() as node:
        with TestCgroup("short-lived") as third:
            present(node, [*own_cgroups.paths, third.relative_path])
        assert present(replace(node, object_path=str(marked_object)), own_cgroups.paths).changed
        assert set(node.status()["cgroups"]) == set(own_cgroups.paths)
        assert_accelerates(replace(node, object_path=str(marked_object)), own_cgroups)


def test_a_replaced_table_keeps_old_connections_alive(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """A change of capacity needs new tables: who was accelerated goes on by TCP."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as old,
    ):
        assert_redirected(own_node, topology, old)
        present(own_node, own_cgroups.paths, maximum_connections=100)
        assert own_node.status()["maximum_connections"] == 100
        assert_by_tcp(own_node, topology, old)
        old.bulk(2_000_000)
        with connected(topology.client, topology.server, topology.address4) as new:
            assert_redirected(own_node, topology, new)


def test_a_cgroup_that_leaves_keeps_its_connections_alive(own_node: Sockops, own_cgroups: Cgroups) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
    ):
        assert_redirected(own_node, topology, connection)
        present(own_node, [own_cgroups.server.relative_path])
        assert_by_tcp(own_node, topology, connection)
        connection.bulk(2_000_000)
        present(own_node, own_cgroups.paths)
        assert_by_tcp(own_node, topology, connection)
        assert_accelerates(own_node, own_cgroups)
