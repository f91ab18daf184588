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
SENT_BYTES = 200
RETRANSMITTED_BYTES = 208
_WORD = struct.Struct("=Q")


@dataclass(frozen=True)
class TcpBytes:
    """Payload bytes that went through TCP, each counted once."""

    sent_bytes: int
    received_bytes: int


def read(connection: socket.socket) -> TcpBytes:
    """Returns what TCP carried so far (needs Linux 4.19)."""
    answer = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, STRUCTURE_BYTES)

    def word(offset: int) -> int:
        return int(_WORD.unpack_from(answer, offset)[0])

    return TcpBytes(
        sent_bytes=word(SENT_BYTES) - word(RETRANSMITTED_BYTES), received_bytes=word(RECEIVED_BYTES)
    )
