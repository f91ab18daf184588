# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out the actions of ipvs_bpf on the kernel: all of them in one table.

Every handler accepts that its work is already done or half done: an undo may
follow an action that failed in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping

from ... import file_actions, holds, unit_actions
from ...bpf import ownership
from ...engine import Handler
from ...paths import NodePaths
from . import NAME, kernel_settings, notrack, tencent
from .device_handlers import DeviceHandlers
from .map_handlers import MapHandlers
from .mode_handlers import ModeHandlers
from .observe import places
from .version_handlers import VersionHandlers


def table(paths: NodePaths, notes: list[str], root: str) -> Mapping[str, Handler]:
    """Returns the handlers by kind of action; ``notes`` collects what the operator should know.

    ``root`` is where /proc/sys and /etc are.
    """
    pins = places(paths)
    return {
        **ownership.mount_handlers(paths),
        **file_actions.handlers(),
        **unit_actions.handlers(),
        **holds.handlers(paths, NAME),
        **notrack.handlers(),
        **kernel_settings.handlers(root),
        **tencent.handlers(root),
        **VersionHandlers(paths, pins).table(),
        **MapHandlers(pins).table(),
        **DeviceHandlers(pins).table(),
        **ModeHandlers(paths, pins, notes).table(),
    }
