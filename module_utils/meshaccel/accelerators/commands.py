# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node's command needs of an accelerator, and which accelerators there are.

Only the accelerators that a command line is about are imported: the switches have
to work at once.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Callable, Protocol

from ..engine import BeforeAction, Result
from ..model import Json, Mode
from ..paths import NodePaths


class AcceleratorCommand(Protocol):
    """An accelerator in the node's command. Raises MeshaccelError for what it cannot do."""

    def status(self) -> dict[str, Json]:
        """Returns everything as plain data; its ``state`` is absent where there is nothing."""

    def status_lines(self, status: Mapping[str, Json]) -> list[str]:
        """Returns a status for a reader."""

    def metrics(self, status: Mapping[str, Json]) -> str:
        """Returns a status as Prometheus text."""

    def switch(self, mode: Mode, chosen: Namespace) -> None:
        """Switches at once, says so, and holds it for later runs."""

    def restore(self, before_action: BeforeAction) -> Result:
        """Brings back the wish kept on the node. The caller holds the node's lock."""


def sockops(paths: NodePaths) -> AcceleratorCommand:
    """Returns sockops' part of the command; raises Unsupported without cgroup2."""
    from .sockops.command import Command

    return Command(paths)


def ipvs_bpf(paths: NodePaths) -> AcceleratorCommand:
    """Returns ipvs_bpf's part of the command."""
    from .ipvs_bpf.command import Command

    return Command(paths)


#: In the order of status and restore.
TABLE: dict[str, Callable[[NodePaths], AcceleratorCommand]] = {"sockops": sockops, "ipvs_bpf": ipvs_bpf}
