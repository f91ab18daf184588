# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: which ones processes are in, and how to work inside one."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import MeshaccelError

#: clone(2); Python has it from 3.12 on.
CLONE_NEWNET = 0x40000000
OWN_NAMESPACE = "/proc/thread-self/ns/net"


def of_process(process_id: int) -> str:
    """Returns the file that names a process's network namespace."""
    return f"/proc/{process_id}/ns/net"


def distinct(process_ids: Iterable[int]) -> dict[int, str]:
    """Returns {inode number: file} of the network namespaces of these processes, of those alive."""
    found: dict[int, str] = {}
    # Mostly from the oldest on, which stay: a namespace is opened by its first process's file.
    for process_id in sorted(process_ids):
        path = of_process(process_id)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found.setdefault(os.stat(path).st_ino, path)
    return found


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Has the calling thread work in a network namespace for the length of a block.

    Raises FileNotFoundError or ProcessLookupError when the namespace's process
    has ended, MeshaccelError when the kernel refuses.
    """
    target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        own = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(target, path)
            try:
                yield
            finally:
                _enter(own, "the thread's own")
        finally:
            os.close(own)
    finally:
        os.close(target)


def _enter(descriptor: int, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise MeshaccelError(
            wanted=f"to enter the network namespace {name}",
            found=os.strerror(ctypes.get_errno()),
            remedy="run as root with CAP_SYS_ADMIN",
        )
