"""Programs of others at the same cgroups stay as they are, or are named as what is in the way."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.errors import ApplyFailed
from meshaccel.model import Mode
from tests.kernel import compiled
from tests.kernel.installations import absent, installation, present
from tests.kernel.inventory import assert_untouched, programs_of
from tests.kernel.observation import assert_accelerates
from tests.kernel.topologies import Cgroups
from tests.support.bpffs import own_bpffs
from tests.support.cgroups import TestCgroup
from tests.support.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "foreign"


@pytest.fixture
def foreign_program() -> Iterator[Path]:
    """A sock_ops program of somebody else, loaded and pinned by bpftool."""
    with own_bpffs() as bpffs:
        pin = bpffs / PROGRAM
        run(["bpftool", "prog", "load", str(compiled.foreign()), str(pin)])
        yield pin


@contextlib.contextmanager
def attached(program: Path, cgroup: TestCgroup, *flags: str) -> Iterator[int]:
    """Attach a foreign program to a cgroup meanwhile; yields its id."""
    words = [str(cgroup.path), "sock_ops", "pinned", str(program)]
    run(["bpftool", "cgroup", "attach", *words, *flags])
    try:
        (found,) = [
            item["id"]
            for item in json.loads(run(["bpftool", "-j", "cgroup", "show", str(cgroup.path)]))
            if item["name"] == PROGRAM
        ]
        yield found
    finally:
        run(["bpftool", "cgroup", "detach", *words])


def test_a_program_beside_ours_is_left_alone(own_cgroups: Cgroups, foreign_program: Path) -> None:
    with (
        installation() as node,
        attached(foreign_program, own_cgroups.client, "multi") as foreign,
    ):
        present(node, own_cgroups.paths)
        assert programs_of(own_cgroups.client)[0] == foreign
        assert len(programs_of(own_cgroups.client)) == 2
        assert_accelerates(node, own_cgroups)
        node.switch(Mode.OFF)
        present(node, own_cgroups.paths, maximum_connections=99)
        assert foreign in programs_of(own_cgroups.client)
        absent(node)
        assert programs_of(own_cgroups.client) == [foreign]


def test_a_program_that_comes_after_ours_is_left_alone(own_cgroups: Cgroups, foreign_program: Path) -> None:
    with installation() as node:
        present(node, own_cgroups.paths)
        with attached(foreign_program, own_cgroups.client, "multi") as foreign:
            assert not present(node, own_cgroups.paths).changed
            assert_accelerates(node, own_cgroups)
            absent(node)
            assert programs_of(own_cgroups.client) == [foreign]


def test_an_exclusive_holder_is_named(own_cgroups: Cgroups, foreign_program: Path) -> None:
    """It stays: the kernel would detach it if asked to detach ours, which is not there."""
    with installation() as node:
        with attached(foreign_program, own_cgroups.server) as foreign:
            with pytest.raises(ApplyFailed) as failed:
                present(node, own_cgroups.paths)
            assert f"{PROGRAM} (program {foreign})" in str(failed.value)
            assert own_cgroups.server.relative_path in str(failed.value)
            assert failed.value.undo_errors == ()
            assert programs_of(own_cgroups.server) == [foreign]
            assert programs_of(own_cgroups.client) == []
        assert_untouched(node, own_cgroups)


def test_an_exclusive_holder_above_is_an_error_too(foreign_program: Path) -> None:
    with (
        TestCgroup("above") as above,
        TestCgroup("below", parent=above) as below,
        installation() as node,
        attached(foreign_program, above) as foreign,
    ):
        with pytest.raises(ApplyFailed, match="ancestor") as failed:
            present(node, [below.relative_path])
        assert failed.value.undo_errors == ()
        assert programs_of(above) == [foreign]
        assert programs_of(below) == []


def test_an_exclusive_holder_that_lets_go(own_cgroups: Cgroups, foreign_program: Path) -> None:
    with installation() as node:
        with attached(foreign_program, own_cgroups.server), pytest.raises(ApplyFailed):
            present(node, own_cgroups.paths)
        assert present(node, own_cgroups.paths).changed
        assert_accelerates(node, own_cgroups)
