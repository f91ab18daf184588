# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The state that is, and the one a plan leads to, in the same words: their difference is the diff."""

from __future__ import annotations

from ...model import Json, Mode
from ...ports import PortRange
from .denials.plan import describe as describe_denied
from .desired import Desired
from .observe import Observed
from .relays.observe import describe as describe_relays
from .resolution import resolve


def describe(desired: Desired, observed: Observed) -> dict[str, Json]:
    """Returns the state a plan leads to, in the words of describe_observed()."""
    if not desired.present:
        return {"state": "absent"}
    resolved = resolve(desired, observed)
    digest = observed.object_file.digest if observed.object_file else None
    return {
        "state": "present",
        "mode": resolved.mode.value,
        "object": digest,
        "maximum_connections": desired.maximum_connections,
        "denied_networks": describe_denied(observed.denied.networks),
        "relays": describe_relays(desired.relays),
        "cgroups": {
            policy.path: describe_policy(policy.mode, policy.ports, policy.receive_memory_limit)
            for policy in resolved.policies
        },
    }


def describe_observed(observed: Observed) -> dict[str, Json]:
    """Returns what was observed, for the diff. Only what an operator can wish for."""
    loaded = observed.loaded
    if loaded is None:
        return {"state": "absent"}
    if not loaded.complete:
        return {"state": "incomplete"}
    return {
        "state": "present",
        "mode": loaded.mode.value,
        "object": loaded.digest,
        "maximum_connections": loaded.maximum_connections,
        "denied_networks": describe_denied(loaded.denied_networks),
        "relays": describe_relays(observed.relays.loaded.relays if observed.relays.loaded else ()),
        "cgroups": {
            entry.path or f"gone (id {entry.cgroup_id})": describe_policy(
                entry.mode, entry.ports, entry.receive_memory_limit
            )
            for entry in loaded.attachments
            if entry.attached or entry.path is None
        },
    }


def describe_policy(mode: Mode, ports: tuple[PortRange, ...], receive_memory_limit: int) -> dict[str, Json]:
    """Returns one cgroup's part of a description."""
    return {
        "mode": mode.value,
        "ports": [str(entry) for entry in ports] or "all",
        "receive_memory_limit": receive_memory_limit,
    }
