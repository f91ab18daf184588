# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The unit that runs the follow daemon while the mode is bpf."""

from __future__ import annotations

from ...paths import NodePaths

UNIT_NAME = "meshaccel-follow.service"
#: After the boot unit, which brings the accelerator back. It waits a second before it is started anew.
UNIT = """# Written by meshaccel.
[Unit]
Description=Follow devices and services for meshaccel
Documentation=man:rtnetlink(7)
After=meshaccel-restore.service
ConditionPathExists={wish}
StartLimitIntervalSec=0

[Service]
ExecStart={command} follow ipvs_bpf
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


def unit_text(paths: NodePaths) -> bytes:
    """Returns the unit's file."""
    return UNIT.format(command=paths.command, wish=paths.desired("ipvs_bpf")).encode()
