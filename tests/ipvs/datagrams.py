"""UDP between the lab's hosts: an echo, and a client that wants each of its datagrams back."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

from meshaccel.system.network_namespaces import entered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.ipvs.lab import Host

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
LARGEST = 65_535
ANSWER_SECONDS = 5.0


@contextlib.contextmanager
def echo(hosts: Iterable[Host], port: int, version: int) -> Iterator[None]:
    """Send back what comes to a port of hosts, behind the address that it came from and a newline."""
    with contextlib.ExitStack() as resources:
        for host in hosts:
            server = resources.enter_context(udp_socket(host, version))
            server.bind(("::" if version == 6 else "", port))
            thread = threading.Thread(target=_answer, args=(server,))
            # Shutting an unconnected socket down fails, and wakes who reads it all the same.
            resources.callback(thread.join)
            resources.callback(_wake, server)
            thread.start()
        yield


def udp_socket(host: Host, version: int) -> socket.socket:
    """Return a socket of a host."""
    with entered(str(host.namespace.path)):
        made = socket.socket(FAMILIES[version], socket.SOCK_DGRAM)
    made.settimeout(ANSWER_SECONDS)
    return made


def ask(client: socket.socket, size: int) -> str:
    """Send random bytes on a connected socket; returns what the echo saw as the client's address.

    Raises TimeoutError when no answer comes, AssertionError when it is another.
    """
    sent = os.urandom(size)
    client.send(sent)
    answer = client.recv(LARGEST)
    seen, _, back = answer.partition(b"\n")
    assert back == sent, f"{len(sent)} bytes sent, others or another number of bytes back: {len(back)}"
    return seen.decode()


def _answer(server: socket.socket) -> None:
    server.settimeout(None)
    while True:
        try:
            data, client = server.recvfrom(LARGEST)
        except OSError:
            return
        if not data:
            return
        server.sendto(client[0].encode() + b"\n" + data, client)


def _wake(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
