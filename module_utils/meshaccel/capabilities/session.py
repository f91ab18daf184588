# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What the probes of one run share: maps, the kernel's BTF, and the way to say no."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from types import TracebackType

from ..bpf import libbpf, syscall
from ..bpf.libbpf import BpfError
from ..paths import NodePaths

#: enum bpf_map_type, include/uapi/linux/bpf.h.
PROGRAM_ARRAY = 3
SOCKET_MAP = 15
SOCKET_HASH = 18
CGROUP_STORAGE = 19
SOCKET_STORAGE = 24
#: map_flags: such maps are never preallocated.
NO_PREALLOCATION = 1

KERNEL_BTF = "/sys/kernel/btf/vmlinux"
BTF_KIND_STRUCTURE = 4
BTF_KIND_FUNCTION = 12


class Lacking(Exception):
    """The node does not have it; the message is the reason."""


class Undetermined(Exception):
    """The node could not be asked; the message is the reason."""


class Session:
    """One run of probes. A context manager that closes what the probes made."""

    def __init__(self, paths: NodePaths) -> None:
        """Prepares; nothing is made before a probe asks for it."""
        self.paths = paths
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Session:
        self._resources.enter_context(syscall.unlimited_locked_memory())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    @functools.cached_property
    def socket_hash(self) -> int:
        """A SOCKHASH with keys of eight bytes."""
        return self.keep(syscall.create_map(SOCKET_HASH, key_size=8, value_size=8, entries=1))

    @functools.cached_property
    def socket_map(self) -> int:
        """A SOCKMAP of one entry."""
        return self.keep(syscall.create_map(SOCKET_MAP, key_size=4, value_size=8, entries=1))

    @functools.cached_property
    def socket_storage(self) -> int:
        """A storage of one C int for each socket."""
        integer = self.keep(syscall.load_integer_btf())
        return self.keep(
            syscall.create_map(
                SOCKET_STORAGE,
                key_size=4,
                value_size=4,
                entries=0,
                flags=NO_PREALLOCATION,
                description=syscall.Description(
                    syscall.PROBE_NAME, integer, syscall.INTEGER_TYPE, syscall.INTEGER_TYPE
                ),
            )
        )

    @functools.cached_property
    def cgroup_storage(self) -> int:
        """A storage of four bytes for each cgroup, keyed by the cgroup's id."""
        return self.keep(syscall.create_map(CGROUP_STORAGE, key_size=8, value_size=4, entries=0))

    @functools.cached_property
    def program_array(self) -> int:
        """A table of programs for tail calls."""
        return self.keep(syscall.create_map(PROGRAM_ARRAY, key_size=4, value_size=4, entries=1))

    def keep(self, descriptor: int) -> int:
        """Closes a descriptor with the session; returns it."""
        self._resources.callback(os.close, descriptor)
        return descriptor

    def function_id(self, name: str) -> int:
        """Returns a function's id in the kernel's BTF; raises Lacking when it has none."""
        return self._type_id(name, BTF_KIND_FUNCTION)

    def structure_id(self, name: str) -> int:
        """Returns a structure's id in the kernel's BTF; raises Lacking when it has none."""
        return self._type_id(name, BTF_KIND_STRUCTURE)

    @functools.cached_property
    def _kernel_btf(self) -> int:
        library = libbpf.library()
        handle = library.call("read the kernel's BTF", "btf__parse", os.fsencode(KERNEL_BTF), None)
        self._resources.callback(library.call, "free BTF", "btf__free", handle)
        return handle

    def _type_id(self, name: str, kind: int) -> int:
        library = libbpf.library()
        try:
            return library.call(
                f"find {name}", "btf__find_by_name_kind", self._kernel_btf, name.encode(), kind
            )
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            raise Lacking(f"{KERNEL_BTF} has no {name}") from error
