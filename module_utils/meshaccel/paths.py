# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Where things of ours lie on a node. Nothing of ours lies anywhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class NodePaths:
    """The places of one installation; tests give their own."""

    #: Desired state, holds and the record of the last run.
    configuration: str = "/etc/meshaccel"
    #: The package and the BPF objects.
    library: str = "/usr/lib/meshaccel"
    #: Where bpffs is, or will be, mounted.
    bpffs: str = "/sys/fs/bpf"
    #: Every pin of ours lies below this directory of bpffs.
    pins: str = "/sys/fs/bpf/meshaccel"
    #: Lock and other state that need not survive a reboot.
    runtime: str = "/run/meshaccel"
    #: The node's own command.
    command: str = "/usr/sbin/meshaccel"
    #: systemd's directory for units of the administrator.
    units: str = "/etc/systemd/system"

    @property
    def release(self) -> str:
        """The release in use: a symlink of ours, swapped by rename."""
        return os.path.join(self.library, "current")

    @property
    def lock(self) -> str:
        """The lock against two runs at once."""
        return os.path.join(self.runtime, "lock")

    @property
    def follower(self) -> str:
        """The lock that the follow daemon holds while it runs."""
        return os.path.join(self.runtime, "follow")

    @property
    def holds(self) -> str:
        """Modes that an operator holds by hand."""
        return os.path.join(self.configuration, "holds.json")

    @property
    def record(self) -> str:
        """The record of the last run."""
        return os.path.join(self.configuration, "record.json")

    def desired(self, accelerator: str) -> str:
        """The file with an accelerator's desired state."""
        return os.path.join(self.configuration, f"{accelerator}.json")

    def bpf_object(self, name: str) -> str:
        """An installed BPF object file."""
        return os.path.join(self.release, "bpf", f"{name}.bpf.o")


def sibling_object(path: str, name: str) -> str:
    """Returns another BPF object of the release that the one at ``path`` is of."""
    return os.path.join(os.path.dirname(path), f"{name}.bpf.o")
