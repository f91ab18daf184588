# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What the wishes mean on this node now. Looked at once in a run: sets and processes change by themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ....system import cgroups
from . import executables, nft_sets
from .desired import Denials
from .executables import DeniedProcess
from .networks import DeniedNetwork, flatten


@dataclass(frozen=True)
class Denied:
    """What is denied here. ``networks`` are as the kernel's table has them."""

    networks: tuple[DeniedNetwork, ...] = ()
    processes: tuple[DeniedProcess, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Says which cgroups are left on TCP, and what to do."""
        return tuple(map(str, self.processes))


def look(wish: Denials, paths: Iterable[str], hierarchy: cgroups.Hierarchy) -> Denied:
    """Reads the sets, and the processes of the cgroups at these paths, of those that are there.

    Raises InvalidInput or Unsupported when a set cannot be read.
    """
    elements = (rule for entry in wish.nft_sets for rule in nft_sets.read(entry))
    there = [path for path in paths if hierarchy.identify(path) is not None]
    return Denied(
        networks=flatten((*wish.networks, *elements)),
        processes=executables.find(wish.executables, there, hierarchy),
    )
