# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What TCP itself carried of a connection; redirected bytes are not in it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

#: struct tcp_info, include/uapi/linux/tcp.h.
STRUCTURE_BYTES = 240
RECEIVED_BYTES = 128
NOT_SENT_BYTES = 144
SENT_BYTES = 200
RETRANSMITTED_BYTES = 208
_WORD_32 = struct.Struct("=I")
_WORD_64 = struct.Struct("=Q")


@dataclass(frozen=True)
class TcpBytes:
    """Payload bytes that were given to TCP and that TCP delivered, each counted once."""

    sent_bytes: int
    received_bytes: int


def read(connection: socket.socket) -> TcpBytes:
    """Returns what TCP carried so far, with what still waits to be sent (Linux 4.19 on)."""
    answer = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, STRUCTURE_BYTES)
    (sent,) = _WORD_64.unpack_from(answer, SENT_BYTES)
    (retransmitted,) = _WORD_64.unpack_from(answer, RETRANSMITTED_BYTES)
    (waiting,) = _WORD_32.unpack_from(answer, NOT_SENT_BYTES)
    (received,) = _WORD_64.unpack_from(answer, RECEIVED_BYTES)
    return TcpBytes(sent - retransmitted + waiting, received)
