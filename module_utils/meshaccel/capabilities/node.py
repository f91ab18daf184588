# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Probes of what stands around the programs: the call, libbpf, BTF, file systems, cgroups."""

from __future__ import annotations

import ctypes
import errno
import os

from ..bpf import attach, libbpf, syscall
from ..bpf.libbpf import BpfError
from ..errors import NotOurs, Unsupported
from ..system import cgroups, mounts
from ..system.temporary_cgroup import temporary_cgroup
from .programs import CONNECTION, PASS
from .session import KERNEL_BTF, Lacking, Session, Undetermined

#: enum bpf_map_type, include/uapi/linux/bpf.h.
HASH = 1
#: The first bytes of BTF, Documentation/bpf/btf.rst; the byte order is the kernel's.
BTF_MAGIC = ctypes.c_uint16(0xEB9F)
#: The same on every architecture since 5.1.
FSOPEN_NUMBER = 430
FSOPEN_CLOSE_ON_EXEC = 1


def check_system_call(_: Session) -> None:
    """Creates the plainest of maps."""
    try:
        descriptor = syscall.create_map(HASH, key_size=4, value_size=4, entries=1)
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise Lacking(
                "not permitted: this process lacks CAP_BPF (CAP_SYS_ADMIN before Linux 5.8)"
            ) from error
        raise
    os.close(descriptor)


def check_libbpf(_: Session) -> None:
    """Opens the library."""
    try:
        libbpf.library()
    except Unsupported as error:
        raise Lacking(f"{error.found}; {error.remedy}") from error


def check_kernel_btf(_: Session) -> None:
    """Reads the first bytes of the kernel's own BTF."""
    try:
        with open(KERNEL_BTF, "rb") as stream:
            magic = stream.read(len(bytes(BTF_MAGIC)))
    except FileNotFoundError as error:
        raise Lacking(f"no {KERNEL_BTF}: the kernel was built without CONFIG_DEBUG_INFO_BTF") from error
    if magic != bytes(BTF_MAGIC):
        raise Lacking(f"{KERNEL_BTF} is no BTF")


def check_bpffs(session: Session) -> None:
    """Finds bpffs mounted where pins go, or asks the kernel to prepare a mount of it."""
    point = session.paths.bpffs
    mount = mounts.at(point, mounts.current())
    if mount is not None and mount.kind == "bpf":
        if mount.read_only:
            raise Lacking(f"the one at {point} is read-only: mount -o remount,rw {point}")
        return
    if not os.path.isdir(point):
        raise Lacking(f"not mounted, and no directory {point} to mount it at")
    prepare_mount(b"bpf")


def prepare_mount(file_system: bytes) -> None:
    """Opens a mount context, which mounts nothing, and closes it again.

    Raises Lacking when the kernel has no such file system or refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(ctypes.c_long(FSOPEN_NUMBER), file_system, ctypes.c_uint(FSOPEN_CLOSE_ON_EXEC))
    if descriptor >= 0:
        os.close(descriptor)
        return
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        raise Undetermined("not mounted, and this kernel (before 5.2) cannot be asked without mounting it")
    if number == errno.ENODEV:
        raise Lacking("not mounted, and the kernel has no such file system")
    if number == errno.EPERM:
        raise Lacking("not mounted, and mounting it needs CAP_SYS_ADMIN")
    raise OSError(number, os.strerror(number))


def check_cgroup2(_: Session) -> None:
    """Finds the cgroup2 hierarchy."""
    try:
        cgroups.hierarchy()
    except Unsupported as error:
        raise Lacking(f"{error.found}; {error.remedy}") from error


def check_cgroup_link(session: Session) -> None:
    """Attaches an empty program by a link to a cgroup made for this."""
    try:
        mount = cgroups.hierarchy().mount
    except Unsupported as error:
        raise Undetermined(f"no cgroup2 to attach to: {error.found}") from error
    program = session.keep(
        syscall.load_program(CONNECTION.program_type, PASS, attach_type=CONNECTION.attach_type)
    )
    with temporary_cgroup(mount) as path:
        try:
            os.close(attach.link_cgroup(program, path))
        except NotOurs as error:
            raise Undetermined(f"{error.found}; {error.remedy}") from error
