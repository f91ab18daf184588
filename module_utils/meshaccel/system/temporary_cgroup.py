# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""A cgroup for the length of a probe, gone afterwards with all that ran in it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: A probe's cgroup is named after the process that made it.
NAME_PREFIX = "meshaccel-probe-"
#: How long the kernel may take to let go of killed processes.
REMOVAL_SECONDS = 5.0
RETRY_SECONDS = 0.01
PROCESSES = "cgroup.procs"


@contextmanager
def temporary_cgroup(parent: str) -> Iterator[str]:
    """Makes a cgroup below ``parent`` and removes it afterwards; yields its path.

    What runs in it at the end is killed. Raises OSError when the kernel does not
    let one be made or removed.
    """
    remove_abandoned(parent)
    path = os.path.join(parent, f"{NAME_PREFIX}{os.getpid()}")
    os.mkdir(path)
    try:
        yield path
    finally:
        remove(path)


def enter(path: str) -> None:
    """Moves the calling process into a cgroup: sockets made from now on belong to it."""
    with open(os.path.join(path, PROCESSES), "w", encoding="ascii") as stream:
        stream.write(str(os.getpid()))


def remove(path: str) -> None:
    """Kills what runs in a cgroup and removes it; raises OSError when it stays busy."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            kill_processes(path)
            time.sleep(RETRY_SECONDS)
        else:
            return


def kill_processes(path: str) -> None:
    """Kills the processes of a cgroup itself."""
    with open(os.path.join(path, PROCESSES), encoding="ascii") as stream:
        identifiers = [int(line) for line in stream]
    for identifier in identifiers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(identifier, signal.SIGKILL)


def remove_abandoned(parent: str) -> None:
    """Removes what probes that were killed left below ``parent``: empty, their process gone."""
    for name in os.listdir(parent):
        maker = name[len(NAME_PREFIX) :] if name.startswith(NAME_PREFIX) else ""
        if maker.isdigit() and not os.path.exists(f"/proc/{maker}"):
            # Somebody still in it, or another probe was faster: not ours to touch.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(parent, name))
