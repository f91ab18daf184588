# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of a few instructions for tc, each of which uses one thing that ipvs_bpf uses; and what is around.

Where the verifier takes the program, the kernel has the thing; none is attached.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ..bpf import assembly as bpf
from ..bpf import libbpf, syscall
from ..errors import Unsupported
from ..ipvs import kernel_module
from .session import NO_PREALLOCATION, Lacking, Session

#: enum bpf_prog_type and bpf_map_type, include/uapi/linux/bpf.h.
SCHED_CLS = 3
HASH = 1
PER_CPU_ARRAY = 6
LRU_HASH = 9
LPM_TRIE = 11
#: enum bpf_func_id.
FIB_LOOKUP = 69
REDIRECT_NEIGHBOUR = 152
COARSE_NANOSECONDS = 160
TIMER_INIT = 169
#: Of TC_ACT_*: the verdict is the next filter's.
UNSPECIFIED = -1
SLOT = -8
#: struct bpf_fib_lookup takes 64 bytes.
FIB_BYTES = 64

Build = Callable[[Session], bytes]


def load(build: Build) -> Callable[[Session], None]:
    """Returns the probe that has the verifier check a program for tc."""

    def check(session: Session) -> None:
        os.close(syscall.load_program(SCHED_CLS, build(session)))

    return check


def map_of(kind: int, *, key_size: int, flags: int = NO_PREALLOCATION) -> Callable[[Session], None]:
    """Returns the probe that creates a map of a kind."""

    def check(_: Session) -> None:
        os.close(syscall.create_map(kind, key_size=key_size, value_size=8, entries=1, flags=flags))

    return check


def empty(_: Session) -> bytes:
    """Returns at once."""
    return bpf.leave(UNSPECIFIED)


def coarse_time(_: Session) -> bytes:
    """Reads the coarse clock."""
    return bpf.call_helper(COARSE_NANOSECONDS) + bpf.leave(UNSPECIFIED)


def redirect_neighbour(_: Session) -> bytes:
    """Sends the packet on by a device, with the neighbour's address filled in by the kernel."""
    arguments = [bpf.move_immediate(register, 0) for register in (bpf.R2, bpf.R3, bpf.R4)]
    return (
        bpf.move_immediate(bpf.R1, 1)
        + b"".join(arguments)
        + bpf.call_helper(REDIRECT_NEIGHBOUR)
        + bpf.leave(UNSPECIFIED)
    )


def fib_lookup(_: Session) -> bytes:
    """Looks a route up, in a structure of zeros on the stack."""
    zeros = b"".join(bpf.store_immediate_64(bpf.R10, SLOT - offset, 0) for offset in range(0, FIB_BYTES, 8))
    return (
        zeros
        + bpf.move(bpf.R2, bpf.R10)
        + bpf.add_immediate(bpf.R2, -FIB_BYTES)
        + bpf.move_immediate(bpf.R3, FIB_BYTES)
        + bpf.move_immediate(bpf.R4, 0)
        + bpf.call_helper(FIB_LOOKUP)
        + bpf.leave(UNSPECIFIED)
    )


def check_ipvs(_: Session) -> None:
    """Finds IPVS in the kernel, or as a module that it can load."""
    try:
        kernel_module.require_available()
    except Unsupported as error:
        raise Lacking(f"{error.found}; {error.remedy}") from error


def check_timer(_: Session) -> None:
    """Has the verifier refuse a timer that lies nowhere: one that knows timers says where it should lie."""
    try:
        os.close(syscall.load_program(SCHED_CLS, bpf.call_helper(TIMER_INIT) + bpf.leave(UNSPECIFIED)))
    except libbpf.BpfError as error:
        unknown = any("unknown" in line for line in error.messages)
        if unknown or error.errno not in (errno.EINVAL, errno.EACCES):
            raise
