# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's processes, from /proc and the cgroup2 hierarchy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

PROCESSES = "/proc"
#: What reading a cgroup says that is gone, or whose processes stand in its domain's file (threaded).
NOT_LISTED = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


def everyone() -> list[int]:
    """Returns the ids of all processes this one can see."""
    return [int(name) for name in os.listdir(PROCESSES) if name.isdigit()]


def below(directories: Iterable[str]) -> set[int]:
    """Returns the processes in these cgroup directories and all below them."""
    return {process for _, members in by_cgroup(directories) for process in members}


def by_cgroup(directories: Iterable[str]) -> Iterator[tuple[str, list[int]]]:
    """Yields these cgroup directories and all below them, each with its own processes."""
    for directory in directories:
        for parent, _, _ in os.walk(directory):
            members = _listed(os.path.join(parent, "cgroup.procs"))
            # 0 stands for a process of an outer PID namespace.
            yield parent, [process for process in members if process]


def _listed(path: str) -> list[int]:
    try:
        with open(path, encoding="ascii") as stream:
            return [int(word) for word in stream.read().split()]
    except OSError as error:
        if error.errno in NOT_LISTED:
            return []
        raise
