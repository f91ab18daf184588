# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What sockops counts for a cgroup, to show why an arm was or was not redirected."""

from __future__ import annotations

from collections.abc import Mapping

from ..accelerators.sockops.service import Sockops


def sockops_counters(node: Sockops, cgroup: str) -> Mapping[str, int] | None:
    """Returns the counters of the policy that a child of this cgroup falls under.

    None when sockops is not on the node, or neither this cgroup nor one above it
    is opted in. Of nested ones the innermost decides.
    """
    policies = node.status().get("cgroups", {})
    path = node.hierarchy.relative(cgroup)
    above = [name for name in policies if path == name or path.startswith(f"{name}/")]
    if not above:
        return None
    counters: Mapping[str, int] = policies[max(above, key=len)]["counters"]
    return counters
