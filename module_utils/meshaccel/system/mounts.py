# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Mount points, read from the kernel; bpffs mounted with our mark."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass

from ..errors import MeshaccelError

MOUNT_INFORMATION = "/proc/self/mountinfo"
#: The source column of a mount of ours, in /proc/mounts.
MARK = "meshaccel"
#: How mountinfo writes a space, a tab, a newline and a backslash in a path.
OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo; ``read_only`` is the mount's or its file system's."""

    point: str
    kind: str
    source: str
    read_only: bool


def parse(text: str) -> tuple[Mount, ...]:
    """Parses mountinfo (proc_pid_mountinfo(5)); later mounts hide earlier ones."""
    mounts: dict[str, Mount] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        point = OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        options = fields[5].split(",") + rest[2].split(",")
        mounts[point] = Mount(point, rest[0], rest[1], "ro" in options)
    return tuple(mounts.values())


def current() -> tuple[Mount, ...]:
    """Returns this process's mounts."""
    with open(MOUNT_INFORMATION, encoding="utf-8", errors="surrogateescape") as stream:
        return parse(stream.read())


def find(kind: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Returns the first mount of a file system type."""
    return next((mount for mount in mounts if mount.kind == kind), None)


def at(point: str, mounts: tuple[Mount, ...]) -> Mount | None:
    """Returns the mount at exactly this path."""
    return next((mount for mount in mounts if mount.point == point), None)


def mount_bpffs(point: str) -> None:
    """Mounts bpffs with our mark as its source.

    Raises MeshaccelError when the kernel refuses.
    """
    os.makedirs(point, mode=0o700, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"mode=0700"
    if libc.mount(MARK.encode(), os.fsencode(point), b"bpf", 0, options) != 0:
        raise mount_error(f"bpffs mounted at {point}")


def unmount(point: str) -> None:
    """Unmounts a mount of ours.

    Raises MeshaccelError when it is in use.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), 0) != 0:
        raise mount_error(f"{point} unmounted")


def mount_error(wanted: str) -> MeshaccelError:
    """Builds the error for the mount call that just failed."""
    return MeshaccelError(
        wanted=wanted,
        found=os.strerror(ctypes.get_errno()),
        remedy="check that this runs as root with CAP_SYS_ADMIN in the host's mount namespace",
    )
