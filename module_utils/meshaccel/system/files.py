# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Files and directories below root's control: atomic writes, no symlinks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat

from ..errors import NotOurs

RANDOM_BYTES = 6
TEMPORARY = re.compile(rf"\..+\.[0-9a-f]{{{2 * RANDOM_BYTES}}}")


def read(path: str) -> bytes | None:
    """Returns a regular file's bytes, or None when there is no file.

    Raises NotOurs when a symlink or anything but a regular file is there.
    """
    # Non-blocking, since opening a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refuse(path, "a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refuse(path, "a regular file")
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def write(path: str, content: bytes, mode: int = 0o644) -> None:
    """Replaces a file by rename in its own directory; readers see old or new.

    Raises NotOurs when a symlink or anything but a regular file is there.
    """
    require_regular_or_absent(path)
    directory = os.path.dirname(path)
    make_directory(directory)
    descriptor, temporary = open_temporary(path, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    synchronize_directory(directory)


def open_temporary(path: str, mode: int) -> tuple[int, str]:
    """Creates a file beside the one that it is to replace; returns its descriptor and its name.

    It is locked (flock(2)) for as long as it is open, so that one whose writer
    was killed is known by its missing lock.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = f".{os.path.basename(path)}.{os.urandom(RANDOM_BYTES).hex()}"
        temporary = os.path.join(os.path.dirname(path), name)
        descriptor = os.open(temporary, flags, mode)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # It may have been taken for a killed writer's before it was locked.
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)


def remove_unfinished(directory: str) -> None:
    """Removes what writers that were killed have left in a directory of ours."""
    with contextlib.suppress(FileNotFoundError):
        for name in filter(TEMPORARY.fullmatch, os.listdir(directory)):
            remove_unless_locked(os.path.join(directory, name))


def remove_unless_locked(path: str) -> None:
    """Removes a file that nobody writes; gone meanwhile is fine."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        finally:
            os.close(descriptor)


def remove(path: str) -> None:
    """Removes a regular file; nothing there is fine.

    Raises NotOurs when a symlink or anything but a regular file is there.
    """
    require_regular_or_absent(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def make_directory(path: str, mode: int = 0o755) -> None:
    """Creates a directory and its parents.

    Raises NotOurs when the path is a symlink or not a directory.
    """
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except FileExistsError as error:
        raise refuse(path, "a directory") from error
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise refuse(path, "a directory")


def remove_empty_directory(path: str) -> None:
    """Removes a directory if it is there and empty."""
    with contextlib.suppress(FileNotFoundError, OSError):
        os.rmdir(path)


def require_regular_or_absent(path: str) -> None:
    """Raises NotOurs unless the path is a regular file or nothing at all."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise refuse(path, "a regular file")


def synchronize_directory(path: str) -> None:
    """Makes a rename in the directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse(path: str, wanted: str) -> NotOurs:
    """Builds the error for a path that holds something else than wanted."""
    return NotOurs(
        wanted=f"{wanted} at {path}",
        found="a symlink there" if os.path.islink(path) else "something else there",
        remedy="remove it if nobody needs it, then run again",
    )
