# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Which opted-in cgroup decides on a socket: the innermost its own lies in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from ...system import cgroups
from .observe import Attachment


def memberships(
    cgroup_ids: Iterable[int], attachments: Iterable[Attachment], hierarchy: cgroups.Hierarchy
) -> dict[int, Attachment]:
    """Returns the deciding attachment by cgroup id; one that is not opted in, or gone, is left out."""
    by_path = {entry.path: entry for entry in attachments if entry.path is not None and entry.attached}
    found: dict[int, Attachment] = {}
    for identifier, path in hierarchy.paths_of(cgroup_ids).items():
        entry = innermost(path, by_path)
        if entry is not None:
            found[identifier] = entry
    return found


def innermost(path: str, by_path: Mapping[str, Attachment]) -> Attachment | None:
    """Returns the attachment of the cgroup at a path (relative to the mount) or of its nearest ancestor."""
    while path not in by_path:
        if path in ("", os.curdir):
            return None
        path = os.path.dirname(path) or os.curdir
    return by_path[path]
