"""Connections of a test's own from the lab's hosts to an echo: opened one by one, and spoken on later."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from typing import TYPE_CHECKING

from meshaccel.system.network_namespaces import entered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ipvs.lab import Host

SECONDS = 5.0
WORD_BYTES = 64
PAUSE_SECONDS = 0.05


def connect(
    host: Host, address: str, port: int, *, source_port: int = 0, seconds: float = SECONDS
) -> socket.socket:
    """Connect from a host; of a source port that is named, one that was used a moment ago.

    Raises TimeoutError when the handshake takes longer, or another OSError.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with contextlib.ExitStack() as undone:
        with entered(str(host.namespace.path)):
            made = undone.enter_context(socket.socket(family, socket.SOCK_STREAM))
        made.settimeout(seconds)
        if source_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host.address(6 if family == socket.AF_INET6 else 4), source_port))
        made.connect((address, port))
        undone.pop_all()
    return made


@contextlib.contextmanager
def connected(host: Host, address: str, port: int, number: int = 1) -> Iterator[list[socket.socket]]:
    """Have connections that an echo has answered on."""
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(connect(host, address, port)) for _ in range(number)]
        assert all(answers(each) for each in made)
        yield made


def reaches(host: Host, address: str, port: int, seconds: float = 0.7) -> bool:
    """Whether a connection comes to be within some seconds: less than one, before a SYN is sent again."""
    try:
        connect(host, address, port, seconds=seconds).close()
    except OSError:
        return False
    return True


def answers(connection: socket.socket, seconds: float = SECONDS) -> bool:
    """Whether an echo sends back a word on a connection within some seconds; what came late is left there."""
    connection.settimeout(seconds)
    word = os.urandom(WORD_BYTES)
    received = b""
    try:
        connection.sendall(word)
        while len(received) < WORD_BYTES:
            part = connection.recv(WORD_BYTES - len(received))
            if not part:
                return False
            received += part
    except OSError:
        return False
    assert received == word
    return True


def lasts(connection: socket.socket, seconds: float) -> float:
    """Return for how many seconds, of at most so many, an echo has gone on answering."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if not answers(connection, 1.0):
            break
        time.sleep(PAUSE_SECONDS)
    return time.monotonic() - begun
