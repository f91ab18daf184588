# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs that redirected sockets do not suit: found in the opted-in cgroups, their cgroups left on TCP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from ....checks import invalid
from ....errors import Unsupported
from ....model import Json
from ....system import cgroups, processes

#: They read with splice(), to which the kernel says EAGAIN at a socket in a sockmap.
DEFAULT_EXECUTABLES: tuple[str, ...] = ("haproxy", "systemd-socket-proxyd")
#: What the kernel adds to the path of a file that was replaced, as by an upgrade.
REPLACED = " (deleted)"


@dataclass(frozen=True, order=True)
class DeniedProcess:
    """A process of a denied executable, one for its cgroup (a path below the mount, and an id)."""

    cgroup: str
    cgroup_id: int
    process_id: int
    executable: str

    def __str__(self) -> str:
        return (
            f"cgroup {self.cgroup} stays on TCP: its process {self.process_id} is {self.executable}, "
            "which is denied; give it a cgroup of its own, or take it out of sockops_denied_executables"
        )


def parse_executable(entry: Json) -> str:
    """Parses one entry of ``sockops_denied_executables``: a name, or an absolute path."""
    well_formed = isinstance(entry, str) and "\0" not in entry and entry.strip() == entry != ""
    if not well_formed or ("/" in entry and not is_absolute(entry)):
        invalid("an executable's name or absolute path", repr(entry), "for example haproxy")
    return str(entry)


def is_absolute(path: str) -> bool:
    """True for an absolute path as the kernel writes it."""
    return path == os.path.normpath(path) and len(path) > 1 and path[0] == "/" != path[1]


def find(
    executables: Iterable[str], paths: Iterable[str], hierarchy: cgroups.Hierarchy
) -> tuple[DeniedProcess, ...]:
    """Looks through the processes of these cgroups, and of all below them.

    One readlink() a process, for processes come and go by the thousand.
    """
    wanted = frozenset(executables)
    found: dict[str, DeniedProcess] = {}
    if not wanted:
        return ()
    for directory, members in processes.by_cgroup(map(hierarchy.absolute, outermost(paths))):
        denied = first_denied(members, wanted)
        if denied is not None:
            path = hierarchy.relative(directory)
            found[path] = DeniedProcess(path, os.lstat(directory).st_ino, *denied)
    return tuple(sorted(found.values()))


def first_denied(members: Iterable[int], wanted: frozenset[str]) -> tuple[int, str] | None:
    """Returns the first of these processes whose executable is denied, with it."""
    for process_id in members:
        executable = executable_of(process_id)
        if executable in wanted or os.path.basename(executable) in wanted:
            return process_id, executable
    return None


def executable_of(process_id: int) -> str:
    """Returns the path of what a process runs; empty for one that has ended and for a kernel thread.

    Raises Unsupported without the right to see it (proc(5), ptrace(2) on access modes).
    """
    try:
        path = os.readlink(f"{processes.PROCESSES}/{process_id}/exe")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except PermissionError as error:
        raise Unsupported(
            wanted=f"to see what process {process_id} of an opted-in cgroup runs",
            found="that it is not permitted",
            remedy="run as root with CAP_SYS_PTRACE, or with no sockops_denied_executables",
        ) from error
    return path.removesuffix(REPLACED)


def outermost(paths: Iterable[str]) -> list[str]:
    """Returns the paths that lie in none of the others."""
    result: list[str] = []
    for path in sorted(paths, key=lambda each: "" if each == os.curdir else each + "/"):
        if not result or not lies_in(path, result[-1]):
            result.append(path)
    return result


def lies_in(path: str, outer: str) -> bool:
    """True when a path, relative as the other, is the other or below it."""
    return outer in (os.curdir, path) or path.startswith(outer + "/")
