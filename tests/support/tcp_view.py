"""What the kernel's TCP says of a connection, through ss: the view that redirected bytes bypass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from tests.support.namespaces import NetworkNamespace

BYTES_SENT = re.compile(r"\bbytes_sent:(\d+)")
MEMORY = re.compile(r"\bskmem:\(r(\d+),rb(\d+),")


def bytes_sent(namespace: NetworkNamespace, end: socket.socket) -> int:
    """Return how many bytes TCP has sent from this end; ss leaves out a count of none."""
    found = BYTES_SENT.search(_describe(namespace, end))
    return int(found[1]) if found else 0


def receive_memory(namespace: NetworkNamespace, end: socket.socket) -> int:
    """Return how many bytes of kernel memory this end's unread data takes."""
    found = MEMORY.search(_describe(namespace, end))
    if found is None:
        raise ValueError("ss shows no socket memory")
    return int(found[1])


def _describe(namespace: NetworkNamespace, end: socket.socket) -> str:
    local, remote = end.getsockname()[1], end.getpeername()[1]
    text = namespace.run(["ss", "-tinmHO", f"sport = :{local} and dport = :{remote}"])
    if len(text.splitlines()) != 1:
        raise ValueError(f"ss shows {len(text.splitlines())} sockets of port {local} to {remote}, not 1")
    return text
