# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole node in one look: what each part wishes, what drifted, which roles to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from . import ipvs, runtime
from .accelerators import ipvs_bpf, sockops
from .accelerators.sockops.description import describe, describe_observed
from .accelerators.sockops.desired import Desired, parse
from .accelerators.sockops.object_file import Objects
from .accelerators.sockops.observe import denied_here, observe
from .accelerators.sockops.plan import make_plan
from .errors import InvalidInput
from .model import Json
from .paths import NodePaths
from .system import cgroups

if TYPE_CHECKING:
    from .ipvs.desired import Desired as ServicesDesired

PREFLIGHT = "preflight"
PARTS = (runtime.NAME, sockops.NAME, ipvs.NAME, ipvs_bpf.NAME)
#: Of the steps that a part needs, so many are told; a list of services may need thousands.
MOST_DRIFT_TOLD = 100


@dataclass(frozen=True)
class Part:
    """One part of the node: what it is, what it is to be, what that takes."""

    name: str
    present: bool
    drift: tuple[str, ...]
    before: dict[str, Json]
    after: dict[str, Json]


@dataclass(frozen=True)
class NodePlan:
    """The parts that were asked for, in the order they are installed."""

    parts: tuple[Part, ...]

    @property
    def drift(self) -> dict[str, list[str]]:
        """What each part that is not as wished needs, in words."""
        return {part.name: list(part.drift) for part in self.parts if part.drift}

    @property
    def roles(self) -> list[str]:
        """The roles to run: preflight, then what installs; what goes goes in reverse."""
        drifted = [part for part in self.parts if part.drift]
        coming = [part.name for part in drifted if part.present]
        going = [part.name for part in reversed(drifted) if not part.present]
        return [*going, PREFLIGHT, *coming] if coming else going

    @property
    def before(self) -> dict[str, Json]:
        """What was observed, by part."""
        return {part.name: part.before for part in self.parts}

    @property
    def after(self) -> dict[str, Json]:
        """What the roles lead to, by part."""
        return {part.name: part.after for part in self.parts}


def plan_node(wishes: Mapping[str, Mapping[str, Json] | None], paths: NodePaths) -> NodePlan:
    """Validates every wish, observes and plans. Changes nothing.

    ``wishes`` has role variables by part; None or absent: not managed. Raises
    InvalidInput before anything is observed when a wish is wrong.
    """
    unknown = sorted(set(wishes) - set(PARTS))
    if unknown:
        raise InvalidInput(
            wanted=f"only {', '.join(PARTS)}", found=", ".join(unknown), remedy="check the spelling"
        )
    planners: list[Callable[[], Part]] = []
    runtime_wish = wishes.get(runtime.NAME)
    if runtime_wish is not None:
        planners.append(partial(plan_runtime, runtime.parse(runtime_wish), paths))
    sockops_wish = wishes.get(sockops.NAME)
    if sockops_wish is not None:
        settings = dict(sockops_wish)
        digests = (settings.pop("object_digest", None), settings.pop("relay_object_digest", None))
        hierarchy = cgroups.hierarchy()
        desired = parse(settings, hierarchy)
        planners.append(partial(plan_sockops, desired, paths, hierarchy, digests))
    services_wish = wishes.get(ipvs.NAME)
    if services_wish is not None:
        # Nodes without services need not import what reads them.
        from .ipvs.desired import parse as parse_services

        planners.append(partial(plan_services, parse_services(services_wish), paths))
    bpf_wish = wishes.get(ipvs_bpf.NAME)
    if bpf_wish is not None:
        # Services come before: what is not in IPVS yet cannot be taken.
        planners.append(ipvs_bpf_planner(bpf_wish, paths))
    return NodePlan(tuple(planner() for planner in planners))


def plan_runtime(desired: runtime.Desired, paths: NodePaths) -> Part:
    """Plans the node's runtime; a missing libbpf counts as drift of it."""
    seen = runtime.observe(paths)
    drift = [action.summary for action in runtime.make_plan(desired, seen, paths)]
    if desired.present and not runtime.has_libbpf():
        drift.insert(0, "install libbpf")
    return Part(
        runtime.NAME,
        desired.present,
        tuple(drift),
        runtime.describe_observed(seen),
        runtime.describe(desired, seen),
    )


def plan_sockops(
    desired: Desired,
    paths: NodePaths,
    hierarchy: cgroups.Hierarchy,
    digests: tuple[str | None, str | None],
) -> Part:
    """Plans sockops for the objects, its own and its relays', of the release that is to be installed."""
    denied = denied_here(desired, hierarchy)
    objects = Objects.find(paths.bpf_object(sockops.NAME), *digests, desired.loader)
    seen = observe(desired, paths, hierarchy, objects, denied=denied)
    return Part(
        sockops.NAME,
        desired.present,
        tuple(action.summary for action in make_plan(desired, seen, paths)),
        describe_observed(seen),
        describe(desired, seen),
    )


def plan_services(desired: ServicesDesired, paths: NodePaths) -> Part:
    """Plans the services of IPVS."""
    from .ipvs.service import Services

    planned = Services(paths).converge(desired, check_mode=True)
    drift = told([action.summary for action in planned.actions])
    return Part(ipvs.NAME, desired.present, drift, planned.before, planned.after)


def ipvs_bpf_planner(wish: Mapping[str, Json], paths: NodePaths) -> Callable[[], Part]:
    """Validates the wish for ipvs_bpf and returns what plans it, for the object that is to be installed."""
    from .accelerators.ipvs_bpf.service import IpvsBpf

    accelerator, desired = IpvsBpf.wished(wish, paths)

    def plan() -> Part:
        result = accelerator.converge(desired, check_mode=True)
        drift = told([action.summary for action in result.actions])
        return Part(ipvs_bpf.NAME, desired.present, drift, result.before, result.after)

    return plan


def told(drift: list[str]) -> tuple[str, ...]:
    """Returns the first steps, and how many more there are."""
    more = len(drift) - MOST_DRIFT_TOLD
    return (*drift[:MOST_DRIFT_TOLD], *([f"and {more} more"] if more > 0 else []))
