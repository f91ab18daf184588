"""A TCP sender that cuts its stream in other places the second time, as one without acknowledgements may.

The kernel's own TCP does so rarely, and never on request. With TCP_REPAIR (tcp(7),
include/uapi/linux/tcp.h; Linux 3.5, CAP_NET_ADMIN) a socket goes away without a packet, and
another takes up its connection some bytes earlier.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from tests.support.socket_maker import family_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.socket_maker import SocketMaker

TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_REPAIR_OPTIONS = 22
TCP_REPAIR_WINDOW = 29
RECEIVE_QUEUE = 1
SEND_QUEUE = 2
SEQUENCE = struct.Struct("=I")
OPTION = struct.Struct("=II")
"""struct tcp_repair_opt: what was agreed in the handshake."""
MAXIMUM_SEGMENT_SIZE = 2
WINDOW_SCALE = 3
SCALES_OFFSET = 6
"""Of tcpi_snd_wscale and tcpi_rcv_wscale, four bits each, in struct tcp_info."""
WINDOW_BYTES = 20
"""sizeof(struct tcp_repair_window)."""


@contextlib.contextmanager
def repeating(maker: SocketMaker, owned: socket.socket, repeated: int) -> Iterator[socket.socket]:
    """Continue a connection so many bytes before the last that was sent; takes and closes `owned`.

    The first segment has to have all of them: its sender ignores an acknowledgement of what it has
    not sent. IPv4 only.
    """
    local, remote = owned.getsockname(), owned.getpeername()
    _set(owned, TCP_REPAIR, 1)
    send, receive = (_sequence(owned, queue) for queue in (SEND_QUEUE, RECEIVE_QUEUE))
    options = _agreed(owned)
    window = owned.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, WINDOW_BYTES)
    owned.close()
    with maker.make(family_of(local[0])) as successor:
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _set(successor, TCP_REPAIR, 1)
        successor.bind(local)
        _set_sequence(successor, SEND_QUEUE, send - repeated)
        _set_sequence(successor, RECEIVE_QUEUE, receive)
        successor.connect(remote)
        successor.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_OPTIONS, options)
        # Of no options, but the kernel computes the size of segments anew.
        successor.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
        successor.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, window)
        _set(successor, TCP_REPAIR, 0)
        yield successor


def _set(changed: socket.socket, option: int, value: int) -> None:
    changed.setsockopt(socket.IPPROTO_TCP, option, value)


def _agreed(read: socket.socket) -> bytes:
    """Return the options of the handshake without which segments and windows would be tiny."""
    scales = read.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SCALES_OFFSET + 1)[SCALES_OFFSET]
    segment = read.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return OPTION.pack(MAXIMUM_SEGMENT_SIZE, segment) + OPTION.pack(
        WINDOW_SCALE, scales & 0xF | scales >> 4 << 16
    )


def _sequence(read: socket.socket, queue: int) -> int:
    _set(read, TCP_REPAIR_QUEUE, queue)
    found: int = SEQUENCE.unpack(read.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, SEQUENCE.size))[0]
    return found


def _set_sequence(changed: socket.socket, queue: int, number: int) -> None:
    _set(changed, TCP_REPAIR_QUEUE, queue)
    changed.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, SEQUENCE.pack(number % (1 << 32)))
