# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Kernel settings (sysctl): live values, and what is read at boot and in which order.

systemd-sysctl(8) reads the files of the directories in sysctl.d(5) by their
names, the last one that sets a name wins; it knows /etc/sysctl.conf only by the
symlink 99-sysctl.conf that distributions make. procps' ``sysctl --system``, and
the init scripts of nodes without systemd, read /etc/sysctl.conf behind all others.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Unsupported

#: The first that has a name wins over the same name in the others.
DIRECTORIES = (
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
    "lib/sysctl.d",
)
SUFFIX = ".conf"
LAST = "etc/sysctl.conf"
SYSTEMD = "run/systemd/system"
ROOT = "/"


@dataclass(frozen=True)
class Assignment:
    """A line of a file that is read at boot. ``pattern`` may have the wildcards of glob(7)."""

    path: str
    pattern: str
    value: str

    def sets(self, name: str) -> bool:
        """True when the line sets this name."""
        return fnmatch.fnmatchcase(name, self.pattern)


def path_of(name: str, root: str = ROOT) -> str:
    """Returns the file of a setting such as ``net.ipv4.vs.conntrack``."""
    return os.path.join(root, "proc/sys", *name.split("."))


def read(name: str, root: str = ROOT) -> str | None:
    """Returns a value, its words with single spaces between; None where this kernel has no such setting."""
    try:
        with open(path_of(name, root), encoding="ascii", errors="replace") as stream:
            return normal(stream.read())
    except FileNotFoundError:
        return None


def names_below(prefix: str, root: str = ROOT) -> tuple[str, ...]:
    """Returns the names of the settings in a directory of them, such as ``net.ipv4.vs``; none without it."""
    try:
        return tuple(f"{prefix}.{entry}" for entry in sorted(os.listdir(path_of(prefix, root))))
    except FileNotFoundError:
        return ()


def write(name: str, value: str, root: str = ROOT) -> None:
    """Sets a value; raises Unsupported when the kernel has no such setting, or refuses the value."""
    try:
        descriptor = os.open(path_of(name, root), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode("ascii"))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unsupported(
            wanted=f"{name} = {value}", found=str(error), remedy="correct the value, or leave the setting out"
        ) from error


def normal(value: str) -> str:
    """Returns a value as read() does."""
    return " ".join(value.split())


def read_behind(path: str, root: str = ROOT) -> tuple[Assignment, ...]:
    """Returns what is set at boot by files that are read behind one, which need not be there yet."""
    behind = (each for each in files_in_order(root) if after(each, path))
    return tuple(line for each in behind for line in parse(each, root))


def files_in_order(root: str = ROOT) -> tuple[str, ...]:
    """Returns the files that are read at boot, in their order, without the root."""
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        for name in entries(os.path.join(root, directory)):
            found.setdefault(name, os.path.join(directory, name))
    ordered = [found[name] for name in sorted(found)]
    return tuple(ordered if os.path.isdir(os.path.join(root, SYSTEMD)) else [*ordered, LAST])


def entries(directory: str) -> list[str]:
    """Returns the names in a directory that count."""
    try:
        return [name for name in os.listdir(directory) if name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def parse(path: str, root: str = ROOT) -> Iterator[Assignment]:
    """Yields the lines of one of these files that set something; a missing or empty one has none."""
    try:
        # Symlinks are meant here: 99-sysctl.conf is one, and one to /dev/null masks a file.
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        return
    for line in lines:
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith(("#", ";")):
            yield Assignment(path, dotted(name.strip().removeprefix("-")), normal(value))


def dotted(name: str) -> str:
    """Returns a name with dots: sysctl.d(5) takes slashes, too, and turns both if a slash comes first."""
    first = next((character for character in name if character in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def after(first: str, second: str) -> bool:
    """True when the first file is read behind the second."""
    return first == LAST or os.path.basename(first) > os.path.basename(second)
