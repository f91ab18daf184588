"""A resolver that asks as glibc's does: for both kinds of address at the same moment, from one port."""

from __future__ import annotations

import os
import struct
import threading
import time
from typing import TYPE_CHECKING

from tests.ipvs.datagrams import LARGEST, udp_socket
from tests.ipvs.programs import NAME

if TYPE_CHECKING:
    import socket

    from tests.ipvs.lab import Host

#: Numbers of kinds of records: RFC 1035, RFC 3596.
KINDS = {"A": 1, "AAAA": 28}
INTERNET = 1
RECURSION_DESIRED = 0x0100


class Resolver:
    """Two threads, each on a processor of its own, that send a question each as soon as both are ready."""

    def __init__(self, host: Host, address: str, port: int, version: int = 4) -> None:
        """Prepare for a name server."""
        self._host = host
        self._server = (address, port)
        self._version = version

    def ask(self, times: int) -> list[float]:
        """Ask so many times, each from another port; returns the seconds until both answers were there.

        Raises TimeoutError when one does not come.
        """
        sockets = [udp_socket(self._host, self._version) for _ in range(times)]
        for each in sockets:
            each.connect(self._server)
        together = threading.Barrier(len(KINDS) + 1)
        senders = [
            threading.Thread(target=_send, args=(processor, kind, sockets, together))
            for processor, kind in enumerate(KINDS)
        ]
        for sender in senders:
            sender.start()
        try:
            return [_answered(each, together) for each in sockets]
        finally:
            together.abort()
            for sender in senders:
                sender.join()
            for each in sockets:
                each.close()


def _answered(client: socket.socket, together: threading.Barrier) -> float:
    """Have both sent, and return how long both answers took."""
    begun = time.monotonic()
    together.wait()
    answers = [client.recv(LARGEST) for _ in KINDS]
    seconds = time.monotonic() - begun
    assert {struct.unpack_from("!H", answer)[0] for answer in answers} == set(KINDS.values())
    return seconds


def _send(processor: int, kind: str, sockets: list[socket.socket], together: threading.Barrier) -> None:
    os.sched_setaffinity(0, {processor % (os.cpu_count() or 1)})
    question = _question(kind)
    for client in sockets:
        try:
            together.wait()
        except threading.BrokenBarrierError:
            return
        client.send(question)


def _question(kind: str) -> bytes:
    """Return a question for NAME; its identification is the kind."""
    header = struct.pack("!6H", KINDS[kind], RECURSION_DESIRED, 1, 0, 0, 0)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    return header + labels + b"\0" + struct.pack("!HH", KINDS[kind], INTERNET)
