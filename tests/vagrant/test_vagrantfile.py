"""The Vagrantfile as a user has it: one command brings a node up and accelerates it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.vagrant import libvirt
from tests.vagrant.__main__ import environment_of
from tests.vagrant.machine import Machine
from tests.vm.recipe import DEFAULT_KERNEL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine that is not up yet."""
    machine = Machine("vagrantfile", tmp_path / "state")
    machine.directory.mkdir()
    with libvirt.provided():
        yield machine
        machine.stop()


# Boots, is asked for its packages and converges, all under emulation.
@pytest.mark.timeout(900)
def test_up_brings_a_node_that_is_accelerated(machine: Machine) -> None:
    environment = environment_of(DEFAULT_KERNEL)
    machine.call(["up"], environment)
    shown = machine.call(
        ["ssh", "--command", "sudo bpftool -j cgroup show /sys/fs/cgroup/system.slice"], environment
    )
    assert any("sock_ops" in program["attach_type"] for program in json.loads(shown))
    assert "on" in machine.call(["ssh", "--command", "sudo meshaccel status"], environment).split()
