# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Brings back what is wished of the node and kept on it: at boot, and by the node's command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from . import record
from .accelerators.sockops import NAME as SOCKOPS
from .accelerators.sockops.service import Sockops
from .engine import BeforeAction, Result
from .errors import MeshaccelError
from .ipvs import NAME as SERVICES
from .paths import NodePaths

#: Brings back one part of the node.
Restore = Callable[[BeforeAction], Result]


def restore(sockops: Sockops) -> None:
    """Brings back what is kept on the node, each part also when one before it failed.

    Raises the first failure, or InvalidInput when nothing is kept.
    """
    failures: list[MeshaccelError | OSError] = []
    for name, bring_back in kept_parts(sockops):
        try:
            restore_part(sockops.paths, name, bring_back)
        except (MeshaccelError, OSError) as error:
            failures.append(error)
    for another in failures[1:]:
        print(f"meshaccel: {another}", file=sys.stderr)
    if failures:
        raise failures[0]


def kept_parts(sockops: Sockops) -> list[tuple[str, Restore]]:
    """Returns the parts that have something to restore; sockops where none has, to say so."""
    parts: list[tuple[str, Restore]] = []
    if services_kept(sockops.paths):
        from .ipvs.service import Services

        parts.append((SERVICES, Services(sockops.paths).restore))
    if not parts or os.path.exists(sockops.paths.desired(SOCKOPS)):
        parts.append((SOCKOPS, sockops.restore))
    return parts


def services_kept(paths: NodePaths) -> bool:
    """True when services of IPVS are wished of this node."""
    return os.path.exists(paths.desired(SERVICES))


def restore_part(paths: NodePaths, name: str, bring_back: Restore) -> None:
    """Brings back one part and says what was done."""
    result = record.recorded(
        paths,
        name,
        bring_back,
        keeps=True,
        # Where nothing is wished, nothing failed that status would have to show.
        unattended=os.path.exists(paths.desired(name)),
    )
    for action in result.actions:
        print(action.summary)
    for note in result.notes:
        print(f"note: {note}")
    if not result.changed and not result.notes:
        print(f"{name}: nothing to restore, all is as wished")
