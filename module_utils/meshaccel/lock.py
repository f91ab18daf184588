# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time on a node: two controllers must not interleave."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from .errors import Busy
from .paths import NodePaths
from .system import files

WAIT_SECONDS = 10.0
PAUSE_SECONDS = 0.05
HOLDER_BYTES = 200
#: What open() says of a symlink and of a directory.
NO_FILE_OF_OURS = (errno.ELOOP, errno.EISDIR)


def node_lock(
    paths: NodePaths, purpose: str, wait_seconds: float = WAIT_SECONDS
) -> AbstractContextManager[None]:
    """Holds the node's lock for the length of a block, as held() does."""
    return held(paths.lock, purpose, wait_seconds)


@contextmanager
def held(path: str, purpose: str, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds a lock for the length of a block; leaves no file behind.

    The kernel lets go of it when the process ends, however it ends (flock(2)).
    Raises Busy, naming the holder, when it is not free within wait_seconds.
    """
    descriptor = acquire(path, wait_seconds)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{purpose} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        remove_own(path, descriptor)
        os.close(descriptor)


def is_held(path: str) -> bool:
    """True while somebody holds a lock; leaves it as it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_own(path: str, descriptor: int) -> None:
    """Removes the lock file, unless somebody did and another run has a new one."""
    if still_at(path, descriptor):
        os.unlink(path)
        files.remove_empty_directory(os.path.dirname(path))


def acquire(path: str, wait_seconds: float) -> int:
    """Waits for the lock and returns its descriptor; raises Busy at the deadline."""
    deadline = time.monotonic() + wait_seconds
    while True:
        descriptor = open_lock(path)
        if lock_without_waiting(descriptor) and still_at(path, descriptor):
            return descriptor
        holder = os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace")
        os.close(descriptor)
        if time.monotonic() >= deadline:
            raise Busy(
                wanted=f"the lock {path}",
                found=f"it is held by {holder or 'an unknown run'}",
                remedy="wait for that run to end, then run again",
            )
        time.sleep(PAUSE_SECONDS)


def open_lock(path: str) -> int:
    """Opens the lock file, making it if need be; raises NotOurs for a symlink there.

    The former holder may remove file and directory at any moment; then again.
    """
    directory = os.path.dirname(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        if os.path.islink(directory):
            raise files.refuse(directory, "a directory")
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in NO_FILE_OF_OURS:
                raise files.refuse(path, "the lock file") from error
            raise


def lock_without_waiting(descriptor: int) -> bool:
    """Tries to lock; returns whether it worked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def still_at(path: str, descriptor: int) -> bool:
    """True unless the former holder has removed the file that is open here."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
