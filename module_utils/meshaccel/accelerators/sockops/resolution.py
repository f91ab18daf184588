# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The wish in terms of this node: which cgroup gets which policy."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InvalidInput
from ...holds import held
from ...model import Json, Mode
from ...ports import PortRange
from .desired import CgroupWish, Desired
from .observe import Observed


@dataclass(frozen=True)
class Policy:
    """What one cgroup's entry in the policies map is to say."""

    cgroup_id: int
    path: str
    mode: Mode
    ports: tuple[PortRange, ...]
    receive_memory_limit: int

    def arguments(self, index: int) -> dict[str, Json]:
        """Returns the arguments of the action that writes this policy."""
        return {
            "policy": index,
            "cgroup_id": self.cgroup_id,
            "mode": self.mode.value,
            "ports": [[ports.first, ports.last] for ports in self.ports],
            "receive_memory_limit": self.receive_memory_limit,
        }


@dataclass(frozen=True)
class Resolved:
    """The wish in terms of this node: policies by cgroup, and what is missing."""

    policies: tuple[Policy, ...]
    missing: tuple[str, ...]
    mode: Mode


def resolve(desired: Desired, observed: Observed) -> Resolved:
    """Finds each wish's cgroup on the node, and applies what operators hold and deny.

    The cgroup of a denied executable gets a policy of its own, which is off: of
    nested cgroups the innermost decides, so the others in its parent stay on.
    """
    denied = {process.cgroup: process for process in observed.denied.processes}
    policies: list[Policy] = []
    missing: list[str] = []
    for wish in desired.cgroups:
        path = next((name for name in wish.candidates if name in observed.cgroup_ids), None)
        if path is None:
            missing.append(wish.label)
            continue
        policies.append(
            Policy(
                cgroup_id=observed.cgroup_ids[path],
                path=path,
                mode=Mode.OFF if path in denied else held(observed.hold.cgroups.get(path), wish.mode),
                ports=wish.ports,
                receive_memory_limit=desired.receive_memory_limit,
            )
        )
    wished = {policy.path for policy in policies}
    policies += [
        Policy(process.cgroup_id, path, Mode.OFF, (), desired.receive_memory_limit)
        for path, process in denied.items()
        if path not in wished
    ]
    return Resolved(tuple(policies), tuple(missing), held(observed.hold.mode, desired.mode))


def missing_cgroups(desired: Desired, resolved: Resolved) -> InvalidInput:
    """Builds the error for cgroups that are wished but not there."""
    first = next(wish for wish in desired.cgroups if wish.label in resolved.missing)
    return InvalidInput(
        wanted="the cgroup " + ", ".join(resolved.missing),
        found="no such cgroup (looked for " + looked_for(first) + ")",
        remedy="start what runs in it first, or name its parent cgroup",
    )


def looked_for(wish: CgroupWish) -> str:
    """Lists the places where a cgroup was looked for."""
    return ", ".join(wish.candidates)
