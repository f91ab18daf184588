# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""systemd, where it is the init: units enabled, disabled, reloaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import MeshaccelError

if TYPE_CHECKING:
    import subprocess

#: Exists exactly when systemd is PID 1 (sd_booted(3)).
RUNNING_MARK = "/run/systemd/system"


def running(mark: str = RUNNING_MARK) -> bool:
    """True when systemd manages this node."""
    return os.path.isdir(mark)


def init_name() -> str:
    """Returns the name of PID 1, for messages."""
    with open("/proc/1/comm", encoding="utf-8") as stream:
        return stream.read().strip()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Calls systemctl, and returns how it ended."""
    # Only where a unit changes: the import costs every run on every node otherwise.
    import subprocess

    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)


def is_active(unit: str) -> bool:
    """True while a unit runs, also one whose file has gone meanwhile."""
    return call("is-active", "--quiet", unit).returncode == 0


def control(*arguments: str) -> None:
    """Calls systemctl; raises MeshaccelError with what it printed."""
    finished = call(*arguments)
    if finished.returncode != 0:
        raise MeshaccelError(
            wanted="systemctl " + " ".join(arguments),
            found=finished.stderr.strip() or f"exit code {finished.returncode}",
            remedy="see systemctl status and the journal",
        )
