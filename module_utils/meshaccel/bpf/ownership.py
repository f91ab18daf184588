# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What is ours in bpffs: everything below the pins directory, and nothing else.

A pin of ours is named by its path relative to that directory, such as
``count`` or ``count_maps/connections``.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum

from ..engine import Handler
from ..errors import InvalidInput, NotOurs, Unsupported
from ..model import Action, Plan
from ..paths import NodePaths
from ..system import files, mounts
from . import libbpf, maps

#: NAME_MAX of bpffs (simple_lookup in fs/libfs.c of the kernel).
LONGEST_NAME = 255
#: What the kernel itself puts into a fresh bpffs (CONFIG_BPF_PRELOAD).
KERNEL_ENTRIES = frozenset({"maps.debug", "progs.debug"})
NEAR_MATCHES = 3
DESCRIPTOR_INFORMATION = "/proc/self/fdinfo"


class Kind(Enum):
    """What is pinned; the values are fields that the kernel's fdinfo has for that kind alone.

    (bpf_prog_show_fdinfo, bpf_map_show_fdinfo and bpf_link_show_fdinfo in
    kernel/bpf/syscall.c. The names of the anonymous inodes vary between kernels.)
    """

    PROGRAM = "prog_tag"
    MAP = "map_type"
    LINK = "link_type"

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Bpffs:
    """The BPF file system at the place where our pins go."""

    mounted: bool
    read_only: bool = False
    #: It was mounted by us.
    ours: bool = False
    #: There is something in it outside our pins directory.
    shared: bool = False


# ---- names, pure ----


def pin_name(paths: NodePaths, name: str) -> str:
    """Returns a pin's name relative to the pins directory, given so or as an absolute path.

    Raises InvalidInput for a name that leads out of the directory or that bpffs
    cannot hold: it reserves names with dots (bpf_lookup in the kernel's
    kernel/bpf/inode.c).
    """
    relative = name.removeprefix(paths.pins + "/")
    parts = relative.split("/")
    if relative.startswith("/") or ".." in parts:
        raise invalid_name(paths, name, f"{name!r}, which is outside")
    if not all(parts) or any("." in part or "\0" in part or len(part) > LONGEST_NAME for part in parts):
        raise invalid_name(paths, name, f"{name!r}")
    return relative


def invalid_name(paths: NodePaths, name: str, found: str) -> InvalidInput:
    """Builds the error for a name that no pin of ours can have."""
    suggestion = os.path.basename(os.path.normpath(name)).replace(".", "_").strip("/_") or "count"
    return InvalidInput(
        wanted=f"the name of a pin below {paths.pins}",
        found=found,
        remedy=f"give a path relative to that directory, names without dots, such as {suggestion!r}",
    )


def near(name: str, names: Iterable[str]) -> str:
    """Returns which names there are, the near ones first, for the error of a failed lookup."""
    everything = sorted(names)
    if not everything:
        return "none at all"
    close = difflib.get_close_matches(name, everything, NEAR_MATCHES)
    return f"{', '.join(close)} (near) among {len(everything)}" if close else ", ".join(everything)


# ---- pins, read ----


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Opens a pin for the length of a block."""
    descriptor = maps.open_pin(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_ours(paths: NodePaths, path: str, kind: Kind) -> int | None:
    """Opens a pin of ours; None when nothing is there. The caller closes it.

    Raises NotOurs when something of another kind is there, or when a symlink
    leads there: behind it is not below our directory.
    """
    refuse_symlinks(paths, path)
    if os.path.isdir(path):
        raise of_another_kind(path, kind, "a directory")
    try:
        descriptor = maps.open_pin(path)
    except libbpf.BpfError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    found = kind_of(descriptor)
    if found is not kind:
        os.close(descriptor)
        raise of_another_kind(path, kind, f"a {found}" if found else "something else")
    return descriptor


def kind_of(descriptor: int) -> Kind | None:
    """Returns what an open pin is; None for what a later kernel may bring."""
    path = os.path.join(DESCRIPTOR_INFORMATION, str(descriptor))
    with open(path, encoding="ascii", errors="replace") as stream:
        fields = {line.partition(":")[0] for line in stream}
    # A link's has its program's tag as well.
    return next((kind for kind in (Kind.LINK, Kind.PROGRAM, Kind.MAP) if kind.value in fields), None)


def refuse_symlinks(paths: NodePaths, path: str) -> None:
    """Raises NotOurs when the pins directory or anything below it on this path is a symlink."""
    step = paths.pins
    for part in ["", *os.path.relpath(path, paths.pins).split("/")]:
        step = os.path.join(step, part) if part else step
        if os.path.islink(step):
            raise NotOurs(
                wanted=f"{path} below {paths.pins}",
                found=f"{step} is a symlink to {os.readlink(step)}",
                remedy="remove the symlink if nobody needs it, then run again",
            )


def names(paths: NodePaths) -> tuple[str, ...]:
    """Returns the names of all our pins, sorted. No symlink is followed."""
    found: list[str] = []
    for directory, _, entries in os.walk(paths.pins):
        found += [os.path.relpath(os.path.join(directory, entry), paths.pins) for entry in entries]
    return tuple(sorted(found))


def entries_of(path: str) -> tuple[str, ...]:
    """Returns the names in a directory, sorted; none when there is no directory.

    Raises Unsupported when this process may not look.
    """
    try:
        return tuple(sorted(os.listdir(path)))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except PermissionError as error:
        raise Unsupported(
            wanted=f"to read {path}",
            found=str(error),
            remedy="run as root with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN (become: true)",
        ) from error


def missing_pin(paths: NodePaths, name: str, kind: Kind) -> InvalidInput:
    """Builds the error for a pin that should be there, naming those that are like it."""
    return InvalidInput(
        wanted=f"a {kind} pinned as {name} below {paths.pins}",
        found=f"no such pin; there are: {near(name, names(paths))}",
        remedy="correct the name, or load what pins it first (bpf_program)",
    )


def of_another_kind(path: str, wanted: Kind, found: str) -> NotOurs:
    """Builds the error for a pin that is not what it should be."""
    return NotOurs(
        wanted=f"a {wanted} at {path}, or nothing",
        found=f"{found} there",
        remedy="choose another name, or remove what stands there if nobody needs it",
    )


# ---- directories ----


def make_directories(paths: NodePaths, pin: str) -> None:
    """Creates the directories above a pin of ours, for root alone."""
    refuse_symlinks(paths, pin)
    steps: list[str] = []
    directory = os.path.dirname(pin)
    while directory != os.path.dirname(paths.pins):
        steps.append(directory)
        directory = os.path.dirname(directory)
    for step in reversed(steps):
        with contextlib.suppress(FileExistsError):
            os.mkdir(step, mode=0o700)


def remove_empty_directories(paths: NodePaths, pin: str) -> None:
    """Removes the directories above a pin of ours that are empty now, our own included."""
    directory = os.path.dirname(pin)
    while directory != os.path.dirname(paths.pins):
        files.remove_empty_directory(directory)
        directory = os.path.dirname(directory)


# ---- the file system itself ----


def observe_bpffs(paths: NodePaths) -> Bpffs:
    """Looks at the mount below which our pins lie.

    Raises NotOurs when the pins directory is a symlink or a file.
    """
    mount = mounts.at(paths.bpffs, mounts.current())
    if mount is None or mount.kind != "bpf":
        return Bpffs(mounted=False)
    refuse_symlinks(paths, paths.pins)
    if os.path.exists(paths.pins) and not stat.S_ISDIR(os.lstat(paths.pins).st_mode):
        raise NotOurs(
            wanted=f"our directory {paths.pins}",
            found="a pin there",
            remedy="remove it if nobody needs it, then run again",
        )
    others = set(entries_of(paths.bpffs)) - KERNEL_ENTRIES - {os.path.basename(paths.pins)}
    return Bpffs(True, mount.read_only, mount.source == mounts.MARK, bool(others))


def observe_bpffs_of(paths: NodePaths, accelerator: str) -> Bpffs:
    """Looks at the mount as one accelerator sees it: pins of other parts of ours share it."""
    bpffs = observe_bpffs(paths)
    others = set(entries_of(paths.pins)) - {accelerator}
    return replace(bpffs, shared=bpffs.shared or bool(others))


def mounting(bpffs: Bpffs, paths: NodePaths) -> Plan:
    """Mounts bpffs where there is none; raises Unsupported where nothing can be pinned."""
    if bpffs.read_only:
        raise Unsupported(
            wanted=f"to pin below {paths.pins}",
            found=f"{paths.bpffs} mounted read-only",
            remedy=f"mount -o remount,rw {paths.bpffs}",
        )
    if bpffs.mounted:
        return ()
    return (Action("bpffs.mount", f"mount bpffs at {paths.bpffs}", {}, (unmount_action(paths),)),)


def unmounting(bpffs: Bpffs, paths: NodePaths) -> Plan:
    """Unmounts a bpffs of ours that has nothing in it but what this plan removes."""
    if not bpffs.ours or bpffs.shared:
        return ()
    undo = Action("bpffs.mount", f"mount bpffs at {paths.bpffs}")
    action = unmount_action(paths)
    return (Action(action.kind, action.summary, {}, (undo,)),)


def unmount_action(paths: NodePaths) -> Action:
    """Builds the removal of a mount of ours."""
    return Action("bpffs.unmount", f"unmount {paths.bpffs}")


def mount_handlers(paths: NodePaths) -> dict[str, Handler]:
    """Returns the handlers of the actions above."""

    def ours() -> mounts.Mount | None:
        mount = mounts.at(paths.bpffs, mounts.current())
        return mount if mount is not None and mount.kind == "bpf" else None

    def mount(_: object) -> None:
        if ours() is None:
            mounts.mount_bpffs(paths.bpffs)

    def unmount(_: object) -> None:
        found = ours()
        if found is not None and found.source == mounts.MARK:
            files.remove_empty_directory(paths.pins)
            mounts.unmount(paths.bpffs)

    return {"bpffs.mount": mount, "bpffs.unmount": unmount}
