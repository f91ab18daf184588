# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether redirected bytes count as the receiver's memory.

sockops bounds what an unread connection can hold by the receiver's
sk_rmem_alloc. A kernel that does not charge redirected bytes to it gives a bound
that never bites; only moving bytes shows which kind this one is.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ..bpf import assembly as bpf
from ..bpf import attach, syscall
from ..bpf.libbpf import BpfError
from ..system import tcp_information
from .programs import FLAG_INGRESS, MESSAGE, MESSAGE_REDIRECT_MAP, PASS
from .session import SOCKET_MAP, Lacking, Session, Undetermined

LOOPBACK = "127.0.0.1"
SENDER, RECEIVER = 0, 1
SENT_BYTES = 16_384
TIMEOUT_SECONDS = 1.0
#: include/uapi/asm-generic/socket.h; Python's socket module has no name for it.
SO_MEMINFO = 55
#: include/uapi/linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC comes first of nine.
MEMORY_INFORMATION = struct.Struct("=9I")


def check_receive_accounting(session: Session) -> None:
    """Redirects some bytes on loopback, unread, and reads the receiver's memory."""
    socket_map = session.keep(syscall.create_map(SOCKET_MAP, key_size=4, value_size=4, entries=2))
    program = session.keep(
        syscall.load_program(MESSAGE.program_type, redirect(socket_map), attach_type=MESSAGE.attach_type)
    )
    attach.attach_to_socket_map(program, socket_map)
    with loopback_connection() as (sender, receiver):
        enter_map(socket_map, sender, receiver)
        sender.sendall(bytes(SENT_BYTES))
        if tcp_information.read(sender).sent_bytes:
            raise Undetermined("the bytes went by TCP, so nothing was redirected that could be charged")
        charged = receive_memory(receiver)
    if charged < SENT_BYTES:
        raise Lacking(
            f"{SENT_BYTES} redirected bytes left {charged} bytes in the receiver's sk_rmem_alloc: "
            "an unread connection could take any amount of memory"
        )


def redirect(socket_map: int) -> bytes:
    """The program: every message goes to the receiver's ingress queue."""
    return (
        bpf.load_map(bpf.R2, socket_map)
        + bpf.move_immediate(bpf.R3, RECEIVER)
        + bpf.move_immediate(bpf.R4, FLAG_INGRESS)
        + bpf.call_helper(MESSAGE_REDIRECT_MAP)
        + PASS
    )


def enter_map(socket_map: int, sender: socket.socket, receiver: socket.socket) -> None:
    """Puts both ends into the map.

    EBUSY means that this process runs where an accelerator already redirects its
    sockets: then that one's redirect is measured, which answers the same question.
    """
    try:
        syscall.update_socket_map(socket_map, SENDER, sender.fileno())
        syscall.update_socket_map(socket_map, RECEIVER, receiver.fileno())
    except BpfError as error:
        if error.errno != errno.EBUSY:
            raise


def receive_memory(connection: socket.socket) -> int:
    """Returns a socket's sk_rmem_alloc in bytes."""
    answer = connection.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMORY_INFORMATION.size)
    return int(MEMORY_INFORMATION.unpack(answer)[0])


@contextmanager
def loopback_connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connects to itself over loopback; yields the connecting and the accepted end."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=1))
        listener.settimeout(TIMEOUT_SECONDS)
        sender = stack.enter_context(
            socket.create_connection(listener.getsockname(), timeout=TIMEOUT_SECONDS)
        )
        receiver, _ = listener.accept()
        stack.enter_context(receiver)
        yield sender, receiver
