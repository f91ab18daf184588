# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's cgroup2 hierarchy: paths, ids, and how others name their cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import InvalidInput, Unsupported
from . import mounts

#: Where the kubelet's cgroupfs driver puts pods.
KUBELET_PARENTS = ("kubepods", "kubepods/burstable", "kubepods/besteffort")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup2 hierarchy."""

    mount: str

    def absolute(self, path: str) -> str:
        """Returns the path below the mount, for a relative or absolute one.

        Raises InvalidInput when it leads out of the mount.
        """
        joined = os.path.normpath(os.path.join(self.mount, path))
        if joined != self.mount and not joined.startswith(self.mount + "/"):
            raise InvalidInput(
                wanted=f"a cgroup below the cgroup2 mount {self.mount}",
                found=f"{path!r}, which is outside",
                remedy="give the path below the mount, absolute or relative to it",
            )
        return joined

    def relative(self, path: str) -> str:
        """Returns the path relative to the mount; the root cgroup is ``.``."""
        return os.path.relpath(self.absolute(path), self.mount)

    def identify(self, path: str) -> int | None:
        """Returns a cgroup's id (its inode, cgroup_path_from_kernfs_id), or None.

        None means that there is no such cgroup now. Raises InvalidInput when the
        path is a symlink, no directory, or not of this hierarchy.
        """
        absolute = self.absolute(path)
        try:
            status = os.lstat(absolute)
        except (FileNotFoundError, NotADirectoryError):
            return None
        same_hierarchy = status.st_dev == os.lstat(self.mount).st_dev
        if not same_hierarchy or os.path.realpath(absolute) != absolute or not os.path.isdir(absolute):
            raise InvalidInput(
                wanted=f"a cgroup2 directory at {absolute}",
                found="a symlink, a file or another file system",
                remedy="name a directory of the cgroup2 hierarchy",
            )
        return status.st_ino

    def make(self, path: str) -> None:
        """Makes a cgroup and those above it, where they are not there.

        systemd and the kubelet take over a cgroup that they find, id and programs
        included. Raises InvalidInput when the path leads out of the mount.
        """
        os.makedirs(self.absolute(path), exist_ok=True)

    def paths_of(self, identifiers: Iterable[int]) -> dict[int, str]:
        """Returns the relative paths of the cgroups with these ids, of those alive."""
        wanted = set(identifiers)
        found: dict[int, str] = {}
        root = os.lstat(self.mount).st_ino
        if root in wanted:
            found[root] = self.relative(self.mount)
        pending = [self.mount]
        while pending and len(found) < len(wanted):
            directory = pending.pop()
            try:
                entries = [entry for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.inode() in wanted:
                    found[entry.inode()] = self.relative(entry.path)
                pending.append(entry.path)
        return found


def hierarchy() -> Hierarchy:
    """Returns the mounted cgroup2 hierarchy.

    Raises Unsupported when there is none.
    """
    mount = mounts.find("cgroup2", mounts.current())
    if mount is None:
        raise Unsupported(
            wanted="a mounted cgroup2 hierarchy",
            found="none in " + mounts.MOUNT_INFORMATION,
            remedy="mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with "
            "systemd.unified_cgroup_hierarchy=1",
        )
    return Hierarchy(mount.point)


def systemd_candidates(unit: str) -> tuple[str, ...]:
    """Returns where a unit's cgroup can be, relative to the mount.

    A slice ``a-b.slice`` lies in ``a.slice/a-b.slice`` (systemd.slice(5));
    a service or scope lies in system.slice unless it says otherwise, an instance
    such as app@1.service in a slice of its template (systemd.resource-control(5)).
    """
    stem, _, kind = unit.rpartition(".")
    if kind != "slice":
        template, separator, _ = stem.partition("@")
        if not separator:
            return (f"system.slice/{unit}",)
        escaped = template.replace("-", "\\x2d")
        return (f"system.slice/system-{escaped}.slice/{unit}", f"system.slice/{unit}")
    if stem == "-":
        return (".",)
    parts = stem.split("-")
    steps = ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]
    return ("/".join(steps),)


def is_lasting(path: str) -> bool:
    """True for a cgroup that others come and go in: a slice, or the kubelet's without systemd."""
    return path in KUBELET_PARENTS or all(part.endswith(".slice") for part in path.split("/"))


def kubernetes_candidates(uid: str) -> tuple[str, ...]:
    """Returns where a pod's cgroup can be, under both cgroup drivers of the kubelet.

    The systemd driver writes the UID with underscores (kubelet's
    pod_container_manager); a guaranteed pod has no class in its path.
    """
    systemd_uid = uid.replace("-", "_")
    candidates: list[str] = []
    for quality in ("", "burstable", "besteffort"):
        if quality:
            candidates.append(f"kubepods/{quality}/pod{uid}")
            candidates.append(
                f"kubepods.slice/kubepods-{quality}.slice/kubepods-{quality}-pod{systemd_uid}.slice"
            )
        else:
            candidates.append(f"kubepods/pod{uid}")
            candidates.append(f"kubepods.slice/kubepods-pod{systemd_uid}.slice")
    return tuple(candidates)
