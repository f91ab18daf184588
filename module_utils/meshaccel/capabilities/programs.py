# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of a few instructions, each of which uses one thing that sockops uses.

Where the verifier takes the program, the kernel has the thing; none is attached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..bpf import assembly as bpf
from ..bpf import attach, syscall
from .session import Session

#: enum bpf_prog_type, include/uapi/linux/bpf.h.
SOCK_OPS = 13
SK_MSG = 16
TRACING = 26

#: enum bpf_func_id, include/uapi/linux/bpf.h.
MAP_DELETE_ELEMENT = 3
TAIL_CALL = 12
GET_SOCKET_COOKIE = 46
SOCKET_MAP_UPDATE = 53
MESSAGE_REDIRECT_MAP = 60
SOCKET_HASH_UPDATE = 70
MESSAGE_REDIRECT_HASH = 71
GET_LOCAL_STORAGE = 81
SOCKET_STORAGE_GET = 107
PROBE_READ_KERNEL = 113
SEQUENCE_WRITE = 127
TO_TCP_SOCKET = 137

#: Where the contexts keep the socket: struct sk_msg_md, bpf_sock_ops, bpf_iter__sockmap.
SK_MSG_SOCKET = 72
SOCK_OPS_SOCKET = 184
ITERATOR_META = 0
ITERATOR_SOCKET = 24

STACK_SLOT = -8
SLOT_BYTES = 8
FLAG_INGRESS = 1
PASS = bpf.leave(1)
DONE = bpf.leave(0)

#: Builds a program's instructions on the maps of a session.
Build = Callable[[Session], bytes]


@dataclass(frozen=True)
class Kind:
    """What the kernel has to know of a program beside its instructions."""

    program_type: int
    attach_type: int
    #: Where in the context the socket is, and whether it can be missing there.
    socket_offset: int
    socket_optional: bool

    def with_socket(self, use: bytes) -> bytes:
        """Runs ``use`` with the context in R6 and the socket in R1, then passes."""
        load = bpf.move(bpf.R6, bpf.R1) + bpf.load_word_64(bpf.R1, bpf.R6, self.socket_offset)
        return load + (bpf.jump_if_zero(bpf.R1, use) if self.socket_optional else use)


CONNECTION = Kind(SOCK_OPS, attach.CGROUP_SOCK_OPS, SOCK_OPS_SOCKET, socket_optional=True)
MESSAGE = Kind(SK_MSG, attach.SK_MSG_VERDICT, SK_MSG_SOCKET, socket_optional=False)


def load(kind: Kind, build: Build) -> Callable[[Session], None]:
    """Returns the probe that has the verifier check a program."""

    def check(session: Session) -> None:
        descriptor = syscall.load_program(kind.program_type, build(session), attach_type=kind.attach_type)
        os.close(descriptor)

    return check


def empty(_: Session) -> bytes:
    """Returns at once."""
    return PASS


def to_tcp_socket(kind: Kind) -> Build:
    """Takes the socket for a TCP socket."""
    return lambda _: kind.with_socket(bpf.call_helper(TO_TCP_SOCKET)) + PASS


def socket_storage_get(kind: Kind) -> Build:
    """Looks for the socket's storage."""
    return lambda session: kind.with_socket(look_up_storage(session)) + PASS


def look_up_storage(session: Session) -> bytes:
    """Calls bpf_sk_storage_get for the socket in R1."""
    return (
        bpf.move(bpf.R2, bpf.R1)
        + bpf.load_map(bpf.R1, session.socket_storage)
        + bpf.move_immediate(bpf.R3, 0)
        + bpf.move_immediate(bpf.R4, 0)
        + bpf.call_helper(SOCKET_STORAGE_GET)
    )


def zero_slot(register: int) -> bytes:
    """Points a register at eight zero bytes on the stack."""
    return (
        bpf.store_immediate_64(bpf.R10, STACK_SLOT, 0)
        + bpf.move(register, bpf.R10)
        + bpf.add_immediate(register, STACK_SLOT)
    )


def probe_read_kernel(_: Session) -> bytes:
    """Reads eight bytes of kernel memory."""
    return (
        zero_slot(bpf.R1)
        + bpf.move_immediate(bpf.R2, SLOT_BYTES)
        + bpf.move_immediate(bpf.R3, 0)
        + bpf.call_helper(PROBE_READ_KERNEL)
        + PASS
    )


def redirect_map(session: Session) -> bytes:
    """Redirects a message to a socket of an array."""
    return (
        bpf.load_map(bpf.R2, session.socket_map)
        + bpf.move_immediate(bpf.R3, 0)
        + bpf.move_immediate(bpf.R4, FLAG_INGRESS)
        + bpf.call_helper(MESSAGE_REDIRECT_MAP)
        + PASS
    )


def redirect_hash(session: Session) -> bytes:
    """Redirects a message to a socket of a hash."""
    return (
        bpf.load_map(bpf.R2, session.socket_hash)
        + zero_slot(bpf.R3)
        + bpf.move_immediate(bpf.R4, FLAG_INGRESS)
        + bpf.call_helper(MESSAGE_REDIRECT_HASH)
        + PASS
    )


def tail_call(session: Session) -> bytes:
    """Goes on in another program."""
    return (
        bpf.load_map(bpf.R2, session.program_array)
        + bpf.move_immediate(bpf.R3, 0)
        + bpf.call_helper(TAIL_CALL)
        + PASS
    )


def readonly_cast(session: Session) -> bytes:
    """Reads through a pointer of its own making as a struct tcp_sock."""
    return (
        bpf.move_immediate(bpf.R1, 0)
        + bpf.move_immediate(bpf.R2, session.structure_id("tcp_sock"))
        + bpf.call_kernel_function(session.function_id("bpf_rdonly_cast"))
        + PASS
    )


def cast_to_kernel_context(session: Session) -> bytes:
    """Takes the context for the kernel's own."""
    return bpf.call_kernel_function(session.function_id("bpf_cast_to_kern_ctx")) + PASS


def enter(socket_map: str, helper: int) -> Build:
    """Enters the socket of a connection event into one of the session's socket maps."""
    return lambda session: (
        bpf.load_map(bpf.R2, getattr(session, socket_map))
        + zero_slot(bpf.R3)
        + bpf.move_immediate(bpf.R4, 0)
        + bpf.call_helper(helper)
        + PASS
    )


def socket_hash_delete(session: Session) -> bytes:
    """Takes a socket out of a hash."""
    return (
        bpf.load_map(bpf.R1, session.socket_hash)
        + zero_slot(bpf.R2)
        + bpf.call_helper(MAP_DELETE_ELEMENT)
        + PASS
    )


def get_local_storage(session: Session) -> bytes:
    """Asks for the storage of the cgroup that the program is attached to."""
    return (
        bpf.load_map(bpf.R1, session.cgroup_storage)
        + bpf.move_immediate(bpf.R2, 0)
        + bpf.call_helper(GET_LOCAL_STORAGE)
        + PASS
    )


def get_socket_cookie(_: Session) -> bytes:
    """Asks for the number that identifies a socket for good."""
    return bpf.call_helper(GET_SOCKET_COOKIE) + PASS


def socket_map_iterator(session: Session) -> bytes:
    """Walks a socket map as the release of sockets does: storage, delete, report."""
    walk = (
        look_up_storage(session)
        + bpf.load_map(bpf.R1, session.socket_hash)
        + zero_slot(bpf.R2)
        + bpf.call_helper(MAP_DELETE_ELEMENT)
        + bpf.load_word_64(bpf.R1, bpf.R6, ITERATOR_META)
        + bpf.load_word_64(bpf.R1, bpf.R1, 0)
        + zero_slot(bpf.R2)
        + bpf.move_immediate(bpf.R3, SLOT_BYTES)
        + bpf.call_helper(SEQUENCE_WRITE)
    )
    start = bpf.move(bpf.R6, bpf.R1) + bpf.load_word_64(bpf.R1, bpf.R6, ITERATOR_SOCKET)
    return start + bpf.jump_if_zero(bpf.R1, walk) + DONE


def load_socket_map_iterator(session: Session) -> None:
    """Has the verifier check an iterator over socket maps."""
    descriptor = syscall.load_program(
        TRACING,
        socket_map_iterator(session),
        attach_type=attach.TRACE_ITERATOR,
        attach_btf_id=session.function_id("bpf_iter_sockmap"),
    )
    os.close(descriptor)
