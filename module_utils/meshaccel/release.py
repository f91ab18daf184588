# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The node release on a node: the package and the BPF objects, compared and selected.

What builds and unpacks one is in release_archive, since this module is part of
every run on every node and imports only what that needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping

from .system import files

OBJECT_SUFFIX = ".bpf.o"
SOURCE_SUFFIX = ".py"
#: Of the objects and of their sources, which a node compiles where bcc loads the programs.
BPF_SUFFIXES = (OBJECT_SUFFIX, ".c", ".h")
CURRENT = "current"


def digest_of(contents: Mapping[str, bytes]) -> str:
    """Returns the digest of a set of files: names and bytes, in order of names."""
    total = hashlib.sha256()
    for name in sorted(contents):
        total.update(f"{name}\0{len(contents[name])}\0".encode())
        total.update(contents[name])
    return total.hexdigest()


def installed_digest(directory: str) -> str | None:
    """Returns the digest of an installed release as its files are now, or None."""
    if not os.path.isdir(directory):
        return None
    contents: dict[str, bytes] = {}
    for parent, _, names in os.walk(directory):
        for name in (name for name in names if name.endswith((SOURCE_SUFFIX, *BPF_SUFFIXES))):
            path = os.path.join(parent, name)
            contents[os.path.relpath(path, directory)] = files.read(path) or b""
    return digest_of(contents)


def select(library: str, name: str | None) -> None:
    """Makes a release the current one by an atomic rename; None: no release."""
    current = os.path.join(library, CURRENT)
    if name is None:
        if os.path.islink(current):
            os.unlink(current)
        return
    temporary = f"{current}.{os.urandom(4).hex()}"
    os.symlink(name, temporary)
    os.rename(temporary, current)


def selected(library: str) -> str | None:
    """Returns the name of the current release, or None."""
    try:
        return os.readlink(os.path.join(library, CURRENT))
    except OSError:
        return None


def names(library: str) -> tuple[str, ...]:
    """Returns the releases there are, the current one included."""
    try:
        entries = list(os.scandir(library))
    except FileNotFoundError:
        return ()
    return tuple(sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False)))


def remove_half_done(library: str) -> None:
    """Removes what a killed select() left, and the directory if nothing is in it."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(library):
            if name.startswith(f"{CURRENT}."):
                os.unlink(os.path.join(library, name))
    files.remove_empty_directory(library)


def remove(library: str, name: str) -> None:
    """Removes one release."""
    remove_tree(os.path.join(library, name))


def remove_all(library: str) -> None:
    """Removes every release and the directory they lie in."""
    remove_tree(library)


def remove_tree(path: str) -> None:
    """Removes a directory of ours with all that is in it."""
    # Costs as much to import as all of ours, and most runs remove nothing.
    import shutil

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
