# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's services as one call: converge, restore, status. Modules and the command use these."""

from __future__ import annotations

from dataclasses import dataclass

from .. import engine, kept_wish
from ..model import Json
from ..paths import NodePaths
from ..system import files
from . import NAME, kernel_module, table
from .description import describe, describe_observed
from .desired import Desired
from .document import read_kept, read_wish
from .garbage_collection import without_garbage_collection
from .handlers import Handlers
from .model import VirtualService
from .observe import Observed, observe
from .plan import compare, make_plan


@dataclass(frozen=True)
class ServicesResult(engine.Result):
    """A converge of services, and how many messages it sent the kernel to change its table."""

    messages: int = 0


@dataclass(frozen=True)
class Services:
    """The services of one node."""

    paths: NodePaths

    @without_garbage_collection()
    def converge(
        self,
        desired: Desired,
        *,
        check_mode: bool = False,
        before_action: engine.BeforeAction = engine.ignore,
    ) -> ServicesResult:
        """Makes the node as wished. The caller holds the node's lock.

        Takes up to ``desired.drain_seconds`` longer when servers leave. Raises MeshaccelError;
        on failure the node is back where it was, or the error says what is not.
        """
        with Handlers() as handlers:
            outcome: engine.Outcome[Observed] = engine.converge(
                lambda: observe(desired, self.paths),
                lambda seen: make_plan(desired, seen, self.paths),
                handlers.table(),
                check_mode=check_mode,
                before_action=before_action,
            )
        difference = compare(desired, outcome.before)
        return ServicesResult(
            outcome.actions,
            describe_observed(outcome.before, difference),
            describe(desired, difference),
            tuple(handlers.notes),
            handlers.messages,
        )

    def restore(self, before_action: engine.BeforeAction = engine.ignore) -> ServicesResult:
        """Brings back the services that are kept on the node. The caller holds the node's lock.

        Raises InvalidInput when none are kept or their file is damaged.
        """
        kept = read_wish(kept_wish.require(self.paths, NAME), self.paths.desired(NAME))
        return self.converge(kept, before_action=before_action)

    def status(self) -> dict[str, Json]:
        """Returns how many services are ours and there, as plain data."""
        path = self.paths.desired(NAME)
        content = files.read(path)
        if content is None:
            return {"state": "absent"}
        kept = read_kept(content, path)
        there = {service.key: service for service in (table.read() if kernel_module.loaded() else ())}
        listed = [there[key] for key in kept.listed if key in there]
        return {
            "state": "present",
            "services": len(kept.listed),
            "missing": sorted(str(key) for key in kept.listed if key not in there),
            "made_by_others": len(kept.adopted),
            "leaving": sorted(map(str, kept.leaving)),
            "servers": sum(len(service.servers) for service in listed),
            "without_servers": sorted(str(service) for service in listed if not usable(service)),
        }


def usable(service: VirtualService) -> bool:
    """True when new connections have a server to go to."""
    return any(server.weight for server in service.servers)
