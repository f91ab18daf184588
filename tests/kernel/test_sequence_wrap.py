"""Sequence numbers come round after 4 GiB; the proof of order must not take that for the beginning."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from meshaccel.model import Mode
from tests.kernel.observation import Counted
from tests.kernel.topologies import Cgroups, one_pod
from tests.support.connections import SECONDS, connected

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops

SEQUENCE_NUMBERS = 1 << 32
WRITE = memoryview(bytes(1 << 20))
LAST = b"the last bytes by TCP, unread"
NEXT = b"the first ones after them"


def discard(reader: socket.socket, length: int) -> None:
    """Read without copying. An early EAGAIN is the kernel's, see connections.End.read."""
    while length:
        with contextlib.suppress(BlockingIOError):
            length -= len(reader.recv(min(length, len(WRITE)), socket.MSG_TRUNC))


def write_by_tcp(writer: socket.socket, length: int) -> None:
    """Write so many bytes of no matter."""
    while length:
        length -= writer.send(WRITE[: min(length, len(WRITE))])


def test_a_stream_of_exactly_four_gibibytes_by_tcp(node: Sockops, cgroups: Cgroups) -> None:
    """Now write_seq is what it was at first, and still there are bytes of TCP's that nobody has read."""
    with (
        one_pod(cgroups) as topology,
        connected(topology.client, topology.server, topology.address4) as connection,
        ThreadPoolExecutor(1) as thread,
    ):
        writer, reader = connection.client.socket, connection.server.socket
        node.switch(Mode.OFF)
        bulk = SEQUENCE_NUMBERS - len(LAST)
        discarding = thread.submit(discard, reader, bulk)
        write_by_tcp(writer, bulk)
        discarding.result(SECONDS)
        writer.sendall(LAST)
        node.switch(Mode.ON)
        counted = Counted(node)
        writer.sendall(NEXT)
        received = b""
        while len(received) < len(LAST + NEXT):
            received += reader.recv(1000)
        assert received == LAST + NEXT
        assert counted["tcp_messages_order"] == 1
