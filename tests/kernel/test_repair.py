"""What was removed by hand comes back: by `restore`, as at boot, and by the next run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops import layout
from meshaccel.accelerators.sockops.observe import Places
from meshaccel.errors import InvalidInput
from meshaccel.model import Mode
from meshaccel.system import mounts
from tests.kernel.installations import absent, installation, present
from tests.kernel.inventory import Inventory, programs_of
from tests.kernel.observation import assert_accelerates, assert_redirected, wait_until
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.cgroups import TestCgroup, remove_cgroup
from tests.support.connections import connected

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from meshaccel.engine import Result

Repair = Callable[["Sockops", Cgroups], "Result"]


def by_restore(node: Sockops, _cgroups: Cgroups) -> Result:
    """What the boot unit and `meshaccel restore` do: the wish kept on the node."""
    return node.restore()


def by_converge(node: Sockops, cgroups: Cgroups) -> Result:
    """What a run of the playbook does."""
    return present(node, cgroups.paths)


REPAIRS = pytest.mark.parametrize("repair", [by_restore, by_converge])


def pins_of(node: Sockops, pattern: str) -> list[Path]:
    """Return pins below the place of sockops; there has to be one."""
    found = list(Path(Places.of(node.paths).root).glob(pattern))
    assert found
    return found


def assert_repaired(node: Sockops, cgroups: Cgroups, repair: Repair) -> None:
    """A repair finds something to do, once, and new connections are accelerated again."""
    assert repair(node, cgroups).changed
    assert not repair(node, cgroups).changed
    assert node.status()["state"] == "present"
    assert all(entry["attached"] for entry in node.status()["cgroups"].values())
    assert len(programs_of(cgroups.client)) == len(programs_of(cgroups.server)) == 1
    assert_accelerates(node, cgroups)


@REPAIRS
def test_every_pin_removed(own_node: Sockops, own_cgroups: Cgroups, repair: Repair) -> None:
    """Live connections go on by TCP, and what was loaded goes away with its last socket."""
    before = Inventory.of(own_node)
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        assert_redirected(own_node, topology, live)
        shutil.rmtree(own_node.paths.pins)
        live.exchange()
        assert own_node.status() == {"state": "absent"}
        assert_repaired(own_node, own_cgroups, repair)
        live.exchange()
        live.bulk(1_000_000)
    before.assert_gone()


@REPAIRS
def test_links_removed(own_node: Sockops, own_cgroups: Cgroups, repair: Repair) -> None:
    """The maps are there still, so live connections stay accelerated."""
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        for link in pins_of(own_node, "links/*"):
            link.unlink()
        wait_until(lambda: not programs_of(own_cgroups.client), "the kernel lets go of the links")
        wait_until(lambda: not programs_of(own_cgroups.server), "the kernel lets go of the links")
        assert not any(entry["attached"] for entry in own_node.status()["cgroups"].values())
        assert_repaired(own_node, own_cgroups, repair)
        assert_redirected(own_node, topology, live)


@pytest.mark.parametrize("name", sorted(layout.MAP_SIZES))
def test_one_map_removed(own_node: Sockops, own_cgroups: Cgroups, name: str) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        live.exchange()
        Path(Places.of(own_node.paths).map(name)).unlink()
        live.exchange()
        assert own_node.status() == {"state": "incomplete"}
        assert_repaired(own_node, own_cgroups, by_restore)
        live.exchange()
        live.bulk(1_000_000)


@pytest.mark.parametrize("name", sorted(layout.programs()))
def test_one_program_removed(own_node: Sockops, own_cgroups: Cgroups, name: str) -> None:
    with (
        one_pod(own_cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as live,
    ):
        live.exchange()
        for program in pins_of(own_node, f"programs/*/{name}"):
            program.unlink()
        assert own_node.status() == {"state": "incomplete"}
        assert_repaired(own_node, own_cgroups, by_restore)
        live.exchange()
        live.bulk(1_000_000)


@pytest.mark.parametrize("pattern", ["maps/control", "links/*", "programs/*/meshaccel_message"])
def test_absent_after_pins_were_removed(own_node: Sockops, own_cgroups: Cgroups, pattern: str) -> None:
    """Removal needs no pin to be there."""
    inventory = Inventory.of(own_node)
    for pin in pins_of(own_node, pattern):
        pin.unlink()
    assert absent(own_node).changed
    inventory.assert_gone()
    assert programs_of(own_cgroups.client) == programs_of(own_cgroups.server) == []


def test_restore_after_a_reboot(own_cgroups: Cgroups) -> None:
    """A reboot takes the mount, the pins and the runtime directory, and leaves the files."""
    with installation() as node:
        present(node, own_cgroups.paths, ports=[80, "8000-8100"], maximum_connections=77)
        shutil.rmtree(node.paths.pins)
        own_bpffs_lost(node)
        assert node.restore().changed
        status = node.status()
        assert status["maximum_connections"] == 77
        assert [entry["ports"] for entry in status["cgroups"].values()] == [["80", "8000-8100"]] * 2
        assert not node.restore().changed


def own_bpffs_lost(node: Sockops) -> None:
    """Unmount the bpffs that sockops mounted, as a reboot does."""
    mounts.unmount(node.paths.bpffs)


def test_restore_leaves_out_a_cgroup_that_is_not_there_yet(own_cgroups: Cgroups) -> None:
    """At boot the programs start later than sockops; a later run joins their cgroups."""
    with installation() as node:
        third = TestCgroup("late")
        with third:
            present(node, [*own_cgroups.paths, third.relative_path])
        shutil.rmtree(node.paths.pins)
        assert node.restore().changed
        assert set(node.status()["cgroups"]) == set(own_cgroups.paths)
        with third:
            assert node.restore().changed
            assert len(programs_of(third)) == 1
            absent(node)


def test_restore_makes_a_slice_that_is_not_there_yet(own_cgroups: Cgroups) -> None:
    """What starts in it later finds it, and is accelerated from its first connection on."""
    with installation() as node:
        late = TestCgroup("late.slice")
        inner = TestCgroup("inner.slice", parent=late)
        with late, inner:
            present(node, [own_cgroups.client.relative_path, inner.relative_path])
        shutil.rmtree(node.paths.pins)
        restored = node.restore()
        try:
            assert f"made cgroup {inner.relative_path}, for what will run in it" in restored.notes
            assert len(programs_of(inner)) == 1
            assert not node.restore().notes
            assert_accelerates(node, Cgroups(own_cgroups.client, inner))
            absent(node)
        finally:
            remove_cgroup(inner.path)
            remove_cgroup(late.path)


def test_restore_keeps_what_is_held_by_hand(own_node: Sockops, own_cgroups: Cgroups) -> None:
    """What was switched off in an incident does not come back with a reboot."""
    own_node.switch(Mode.OFF)
    shutil.rmtree(own_node.paths.pins)
    own_node.restore()
    assert own_node.status()["mode"] == "off"
    present(own_node, own_cgroups.paths)
    assert own_node.status()["mode"] == "off"
    own_node.switch(Mode.ON)
    assert not own_node.restore().changed
    assert own_node.status()["mode"] == "on"


def test_restore_of_nothing_says_so() -> None:
    with installation() as node, pytest.raises(InvalidInput, match="there is nothing to restore"):
        node.restore()
