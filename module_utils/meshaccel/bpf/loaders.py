# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The two ways from a BPF object of ours to programs in the kernel."""

from __future__ import annotations

import enum
import hashlib
import os

from .objects import BpfObject

#: Where the kernel shows its own BTF, if it was built with it.
KERNEL_BTF = "/sys/kernel/btf/vmlinux"
IDENTITY_DIGITS = 16


class Loader(enum.Enum):
    """Who makes the programs that the kernel gets."""

    #: The object's own, relocated by libbpf with the kernel's BTF.
    LIBBPF = "libbpf"
    #: Compiled on the node by bcc, from the object's sources, with the kernel's headers.
    BCC = "bcc"

    def open(self, path: str) -> BpfObject:
        """Opens an object file; raises BpfError when libbpf does not take it."""
        if self is Loader.LIBBPF:
            return BpfObject(path)
        # Costs imports that a node without bcc has no use for.
        from .node_built import NodeBuiltObject

        return NodeBuiltObject(path)

    def identity(self, digest: str) -> str:
        """Returns what tells an object's programs, made in this way, from all others: 16 digits.

        ``digest`` is that of the object file, which stands for its sources as well.
        """
        if self is Loader.LIBBPF:
            return digest
        made_of = f"{digest} {self.value} {os.uname().release}"
        return hashlib.sha256(made_of.encode()).hexdigest()[:IDENTITY_DIGITS]


def kernel_has_btf() -> bool:
    """True when the running kernel was built with BTF: without it takes no iterators."""
    return os.path.exists(KERNEL_BTF)
