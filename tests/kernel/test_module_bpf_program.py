"""The module bpf_program on the running kernel: what it loads, swaps, repairs and takes away."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshaccel.bpf import attach, maps, ownership
from meshaccel.bpf.program.desired import STAGED
from tests.kernel.bpf_objects import MAPS, PIN, Node, link_name, own_node, wish
from tests.kernel.observation import wait_until
from tests.kernel.topologies import Cgroups, Topology
from tests.support import bpftool
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected
from tests.support.processes import ManagedProcess, Placement, run

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULE = "bpf_program"
NAMES = ("count_connections", "count_packets", *MAPS)
ABSENT: dict[str, Any] = {"pin": PIN, "state": "absent"}
CONNECTIONS = 12_000
#: Opens connections to itself, one after the other, and says so.
CONNECTOR = f"""
import socket
listener = socket.create_server(("127.0.0.1", 0))
for _ in range({CONNECTIONS}):
    with socket.create_connection(listener.getsockname()), listener.accept()[0]:
        pass
"""


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with nothing on it."""
    with own_node() as made:
        yield made


def open_one(topology: Topology) -> None:
    """Open a connection from the client's cgroup to the server's."""
    with connected(topology.client, topology.server, topology.address4):
        pass


# ---- there and away again ----


def test_check_mode_tells_what_a_run_does_and_leaves_an_untouched_node_untouched(
    node: Node, cgroups: Cgroups
) -> None:
    predicted = node.done(MODULE, check_mode=True, **wish(1, cgroups.client))
    assert not Path(node.paths.bpffs).exists()
    assert not Path(node.paths.runtime).exists()
    assert not bpftool.snapshot().of_names(NAMES).attachments

    done = node.done(MODULE, **wish(1, cgroups.client))

    assert (predicted["changed"], predicted["diff"]) == (True, done["diff"])
    assert predicted["actions"] == done["actions"]
    assert set(node.pins()) == {PIN, link_name(cgroups.client), *(f"{PIN}_maps/{name}" for name in MAPS)}


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_second_run_changes_nothing(node: Node, cgroups: Cgroups, check_mode: bool) -> None:
    parameters = wish(1, cgroups.client, constants={"step": 3}, maximum_entries={"skipped_ports": 99})
    node.done(MODULE, **parameters)
    before = node.pins()

    again = node.done(MODULE, check_mode=check_mode, **parameters)

    assert (again["changed"], again["actions"]) == (False, [])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert node.pins() == before


def test_it_runs_in_the_named_cgroup_alone(node: Node, cgroups: Cgroups, topology: Topology) -> None:
    node.done(MODULE, **wish(1, cgroups=[cgroups.server.relative_path]))
    open_one(topology)
    assert node.counted() == [0, 0]

    node.done(MODULE, **wish(1, cgroups.client))
    open_one(topology)
    assert node.counted() == [1, 0]


def test_absent_leaves_nothing_and_touches_nothing_else(
    node: Node, cgroups: Cgroups, topology: Topology
) -> None:
    other = {**wish(1, cgroups.client), "pin": "others/count"}
    node.done(MODULE, **other)
    theirs = node.pins()
    node.done(MODULE, **wish(1, cgroups.client))

    node.done(MODULE, **ABSENT)

    assert node.pins() == theirs
    open_one(topology)
    assert node.counted("others/count_maps/connections") == [1, 0]
    assert node.done(MODULE, **ABSENT)["changed"] is False
    node.done(MODULE, pin="others/count", state="absent")
    assert not Path(node.paths.bpffs).is_mount()
    wait_until(lambda: bpftool.snapshot().of_names(NAMES).is_empty(), "no object of the test left")


def test_a_bpffs_that_was_there_stays(node: Node, cgroups: Cgroups) -> None:
    bpffs = Path(node.paths.bpffs)
    bpffs.mkdir()
    run(["mount", "-t", "bpf", "none", str(bpffs)])
    node.done(MODULE, **wish(1, cgroups.client))
    node.done(MODULE, **ABSENT)
    assert bpffs.is_mount()
    assert {entry.name for entry in bpffs.iterdir()} <= ownership.KERNEL_ENTRIES


# ---- versions ----


def test_a_new_version_takes_over_with_no_connection_missed(node: Node, cgroups: Cgroups) -> None:
    """The kernel's link stays the same one, and each connection is counted by one of the two versions."""
    node.done(MODULE, **wish(1, cgroups.client))
    link = node.identifier(link_name(cgroups.client))

    place = Placement(cgroup=cgroups.client)
    with ManagedProcess([sys.executable, "-c", CONNECTOR], place) as connector:
        connector.wait_until(lambda: node.counted()[0] > 0, "the first connection", 10.0)
        swaps = 0
        while connector.is_running() or swaps < 2:
            node.done(MODULE, **wish((2, 1)[swaps % 2], cgroups.client))
            swaps += 1
        connector.wait(60.0)

    assert node.identifier(link_name(cgroups.client)) == link
    assert sum(node.counted()) == CONNECTIONS
    assert all(node.counted())


def test_another_constant_is_another_version(node: Node, cgroups: Cgroups, topology: Topology) -> None:
    """The kernel's tag is the same for both: it leaves constants out."""
    node.done(MODULE, **wish(1, cgroups.client))
    open_one(topology)

    changed = node.done(MODULE, **wish(1, cgroups.client, constants={"step": 10}))
    open_one(topology)

    before, after = (json.loads(changed["diff"][when]) for when in ("before", "after"))
    assert (before["tag"], before["constants"] == after["constants"]) == (after["tag"], False)
    assert node.counted() == [11, 0]


def test_maps_that_still_fit_go_on_and_the_others_are_made_anew(node: Node, cgroups: Cgroups) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    before = node.pins()

    node.done(MODULE, **wish(1, cgroups.client, maximum_entries={"skipped_ports": 4096}))

    after = node.pins()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {PIN, f"{PIN}_maps/skipped_ports"}
    with ownership.opened(str(node.pin(f"{PIN}_maps/skipped_ports"))) as descriptor:
        assert attach.map_information(descriptor).maximum_entries == 4096


def test_where_it_attaches_follows_from_the_section(node: Node, cgroups: Cgroups, topology: Topology) -> None:
    """The same pin goes from sock_ops to outgoing packets, which takes another link."""
    node.done(MODULE, **wish(1, cgroups.client))

    node.done(MODULE, **wish(1, cgroups.client, program="count_packets"))

    assert set(node.pins()) == {PIN, link_name(cgroups.client), f"{PIN}_maps/events"}
    with maps.Map.pinned(str(node.pin(f"{PIN}_maps/events")), ctypes.c_uint32, ctypes.c_uint64) as events:
        before = sum(value.value for value in events.read_per_cpu(ctypes.c_uint32(0)))
        open_one(topology)
        assert sum(value.value for value in events.read_per_cpu(ctypes.c_uint32(0))) > before


def test_two_programs_share_a_map_that_one_of_them_reuses(
    node: Node, cgroups: Cgroups, topology: Topology
) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    reusing = wish(2, cgroups.client, pin="reader", reuse_maps={"connections": f"{PIN}_maps/connections"})
    node.done(MODULE, **reusing)

    open_one(topology)

    assert node.counted() == [1, 1]
    assert not node.pin("reader_maps/connections").exists()
    assert node.done(MODULE, **reusing)["changed"] is False

    node.done(MODULE, **{**reusing, "reuse_maps": {}})
    assert node.counted("reader_maps/connections") == [0, 0]


def test_maps_are_left_unpinned_where_that_is_wished(node: Node, cgroups: Cgroups) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    unpinned = wish(1, cgroups.client, pin_maps=False)

    node.done(MODULE, **unpinned)

    assert set(node.pins()) == {PIN, link_name(cgroups.client)}
    assert node.done(MODULE, **unpinned)["changed"] is False


# ---- drift ----


def remove_pins(node: Node, *names: str) -> None:
    for name in names:
        node.pin(name).unlink()


def swap_by_hand(node: Node, cgroups: Cgroups) -> None:
    """Have the link run somebody else's program."""
    with own_node() as elsewhere:
        elsewhere.done(MODULE, **wish(2))
        with (
            ownership.opened(str(elsewhere.pin(PIN))) as program,
            ownership.opened(str(node.pin(link_name(cgroups.client)))) as link,
        ):
            attach.update_link(link, program)


@pytest.mark.parametrize("removed", [PIN, "link", f"{PIN}_maps/connections", "all"])
def test_what_was_unpinned_by_hand_is_back_after_a_run(
    node: Node, cgroups: Cgroups, topology: Topology, removed: str
) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    before = set(node.pins())
    gone = {"link": [link_name(cgroups.client)], "all": sorted(before)}.get(removed, [removed])
    remove_pins(node, *gone)

    repaired = node.done(MODULE, **wish(1, cgroups.client))

    assert repaired["changed"] is True
    assert set(node.pins()) == before
    open_one(topology)
    assert node.counted() == [1, 0]
    assert node.done(MODULE, **wish(1, cgroups.client))["changed"] is False


def test_a_link_that_runs_another_program_is_swapped_back(
    node: Node, cgroups: Cgroups, topology: Topology
) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    before = node.pins()
    swap_by_hand(node, cgroups)

    repaired = node.done(MODULE, **wish(1, cgroups.client))

    assert [action["kind"] for action in repaired["actions"]] == ["bpf_program.update_link"]
    assert node.pins() == before
    open_one(topology)
    assert node.counted() == [1, 0]


def test_a_map_that_was_exchanged_by_hand_is_the_one_that_the_program_then_uses(
    node: Node, cgroups: Cgroups, topology: Topology
) -> None:
    """What is pinned is what others read and write; the program has to follow it."""
    node.done(MODULE, **wish(1, cgroups.client))
    node.done(MODULE, **wish(1, pin="other"))
    node.pin("other_maps/connections").rename(node.pin(f"{PIN}_maps/connections"))

    assert node.done(MODULE, **wish(1, cgroups.client))["changed"] is True

    open_one(topology)
    assert node.counted() == [1, 0]


def test_what_a_killed_run_left_half_pinned_is_no_hindrance(node: Node, cgroups: Cgroups) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    node.done(MODULE, **wish(1, pin="other"))
    node.pin("other").rename(node.pin(STAGED))

    node.done(MODULE, **wish(2, cgroups.client))

    assert not node.pin(STAGED).exists()
    assert node.done(MODULE, **wish(2, cgroups.client))["changed"] is False


def test_a_cgroup_that_was_made_again_is_joined_again(node: Node) -> None:
    cgroup = TestCgroup("again")
    with cgroup:
        node.done(MODULE, **wish(1, cgroup))
        former = link_name(cgroup)
    with cgroup:
        node.done(MODULE, **wish(1, cgroup))
        assert link_name(cgroup) in node.pins()
        assert former == link_name(cgroup) or former not in node.pins()
        assert len(attach.programs_at(str(cgroup.path))) == 1
