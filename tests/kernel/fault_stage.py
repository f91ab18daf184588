"""Nodes for changes that do not end well, and all that they share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from meshaccel.accelerators.sockops import plan
from tests.kernel.fault_changes import Change, Members, Operator
from tests.kernel.fault_process import AtStep, Beside, Ending, Prelude, alone, go_on, nothing, run_apart
from tests.kernel.fault_state import (
    LiveConnection,
    Seen,
    assert_nothing_unowned,
    assert_status_works,
    look,
    together,
)
from tests.kernel.installations import installation
from tests.kernel.topologies import Cgroups, Topology, one_pod
from tests.support.accelerator import OBJECT
from tests.support.cgroups import TestCgroup
from tests.support.connections import connected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.inventory import Inventory

LABELS = ("client", "server", "third", "fourth")


@dataclass(frozen=True)
class Stage:
    """What all nodes of this file share."""

    members: Members
    topology: Topology
    updated_object: Path
    #: All that was ever seen in the kernel.
    inventories: list[Inventory] = field(default_factory=list)

    @property
    def ends(self) -> Cgroups:
        """The cgroups that traffic goes between."""
        return Cgroups(self.members["client"], self.members["server"])


@contextlib.contextmanager
def new_stage(directory: Path) -> Iterator[Stage]:
    """Make cgroups, a pod with a program in two of them, and another version of sockops.

    What is behind the end of an ELF file changes the version's digest, and nothing else. Whatever was
    loaded meanwhile is gone from the kernel in the end. Nobody waits: no message is under way while
    a run goes on, and nobody reads before it ends.
    """
    for path in OBJECT.parent.glob("*.bpf.o"):
        (directory / path.name).write_bytes(path.read_bytes() + b"\0")
    with contextlib.ExitStack() as resources:
        resources.enter_context(mock.patch.object(plan, "SETTLE_SECONDS", 0.0))
        resources.enter_context(mock.patch.object(plan, "RELEASE_SECONDS", 0.0))
        members = {label: resources.enter_context(TestCgroup(label)) for label in LABELS}
        topology = resources.enter_context(one_pod(Cgroups(members["client"], members["server"])))
        stage = Stage(members, topology, directory / OBJECT.name)
        yield stage
        together(*stage.inventories).assert_gone()


@dataclass(frozen=True)
class Case:
    """A node, as wished before a change, with a connection that lives through it all."""

    stage: Stage
    change: Change
    operator: Operator
    live: LiveConnection

    def run(self, *, at_step: AtStep = go_on, prelude: Prelude = nothing, beside: Beside = alone) -> Ending:
        """Make the change in a process of its own, while bytes wait unread."""
        with self.live.unread():
            return run_apart(lambda hook: self.operator.change(self.change, hook), at_step, prelude, beside)

    def look(self) -> Seen:
        """Look at everything; it has to make sense whatever happened."""
        assert_status_works(self.operator.node)
        seen = look(self.operator.node, self.stage.members)
        assert_nothing_unowned(self.operator.node, seen)
        self.stage.inventories.append(seen.inventory())
        return seen


@contextlib.contextmanager
def new_operator(stage: Stage) -> Iterator[Operator]:
    """Make a node, for one change after another; it is taken down whatever state it is in."""
    with installation() as node:
        yield Operator(node, stage.members, stage.updated_object)


@contextlib.contextmanager
def prepared(change: Change, stage: Stage, operator: Operator) -> Iterator[Case]:
    """Have the node as it is wished before a change, with a new connection."""
    topology = stage.topology
    operator.ask(change.before)
    with connected(topology.client, topology.server, topology.address4) as connection:
        live = LiveConnection(topology, connection)
        change.meanwhile(operator.node)
        yield Case(stage, change, operator, live)


@contextlib.contextmanager
def told(words: str) -> Iterator[None]:
    """Say in the error of what is done inside where the run had ended."""
    try:
        yield
    except BaseException as error:
        error.add_note(words)
        raise
