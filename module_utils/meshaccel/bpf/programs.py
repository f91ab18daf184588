# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The declared state of one pinned program, for declared.converge."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..engine import Handler
from ..model import Json, Plan
from ..paths import NodePaths
from .program.desired import Desired, Places, parse
from .program.handlers import Handlers
from .program.observe import Observed, observe
from .program.plan import describe, describe_observed, make_plan


@dataclass(frozen=True)
class PinnedProgram:
    """A declared program on one node."""

    desired: Desired
    paths: NodePaths

    @classmethod
    def parse(cls, raw: Mapping[str, Json], paths: NodePaths) -> PinnedProgram:
        """Parses the options of the module bpf_program; raises InvalidInput."""
        return cls(parse(raw, paths), paths)

    @property
    def purpose(self) -> str:
        """Who holds the node's lock meanwhile."""
        return f"bpf_program {self.desired.pin}"

    @property
    def places(self) -> Places:
        """Where its pins are."""
        return Places.of(self.desired, self.paths)

    def observe(self) -> Observed:
        """Reads the node's state."""
        return observe(self.desired, self.places, self.paths)

    def make_plan(self, observed: Observed) -> Plan:
        """Returns the actions that are missing."""
        return make_plan(self.desired, observed, self.places, self.paths)

    @contextmanager
    def handlers(self) -> Iterator[Mapping[str, Handler]]:
        """Opens the handlers; what they hold is let go at the end."""
        with contextlib.ExitStack() as stack:
            yield Handlers(self.paths, self.places, stack).table()

    def describe_observed(self, observed: Observed) -> dict[str, Json]:
        """Returns what was observed, for the diff."""
        return describe_observed(self.desired, observed)

    def describe(self, observed: Observed) -> dict[str, Json]:
        """Returns what the plan leads to."""
        return describe(self.desired, observed)
