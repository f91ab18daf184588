"""Sockets that a test holds itself, made in a cgroup and a network namespace of its choice.

A socket stays for life in the cgroup and the namespace that its maker was in, and one that is
accepted takes after its listener. A child process in that place makes the sockets and hands them
over, so the test's own process never moves.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.cgroups import TestCgroup
    from tests.support.namespaces import NetworkNamespace

ROOT = Path(__file__).resolve().parents[2]
REQUEST = struct.Struct("=ii")
"""Address family and protocol."""
TIME_LIMIT_SECONDS = 20
"""What a blocking call on these sockets may take before it counts as hung."""
KERNEL_TIMEOUT = struct.pack("ll", TIME_LIMIT_SECONDS, 0)
BACKLOG = 4096


class SocketMaker:
    """Makes TCP sockets in one place. They block, up to a limit that turns a hang into an error.

    The limit is the kernel's (SO_RCVTIMEO), not Python's: that one would poll instead of block.
    """

    def __init__(self, namespace: NetworkNamespace, cgroup: TestCgroup) -> None:
        """Choose the place; the maker runs from entering the context on."""
        self.namespace = namespace
        self._placement = Placement(namespace, cgroup)
        self._resources = contextlib.ExitStack()
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            directory = resources.enter_context(tempfile.TemporaryDirectory(prefix="meshaccel-test-"))
            path = str(Path(directory) / "channel")
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(path)
                listener.listen()
                listener.settimeout(TIME_LIMIT_SECONDS)
                resources.enter_context(
                    ManagedProcess(
                        [sys.executable, "-m", "tests.support.socket_maker", path],
                        self._placement,
                        environment={"PYTHONPATH": str(ROOT)},
                    )
                )
                self._channel = resources.enter_context(listener.accept()[0])
            self._channel.settimeout(TIME_LIMIT_SECONDS)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def make(self, family: int = socket.AF_INET, protocol: int = socket.IPPROTO_TCP) -> socket.socket:
        """Return a new socket; the caller closes it."""
        if self._channel is None:
            raise RuntimeError("not started, use it as a context manager")
        self._channel.send(REQUEST.pack(family, protocol))
        descriptors = socket.recv_fds(self._channel, 1, 1)[1]
        made = socket.socket(fileno=descriptors[0])
        limit_calls(made)
        return made

    def listen(self, address: str, port: int = 0, *, protocol: int = socket.IPPROTO_TCP) -> socket.socket:
        """Return a listening socket; port 0 takes a free one."""
        listener = self.make(family_of(address), protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        return listener

    def connect(self, address: str, port: int, *, protocol: int = socket.IPPROTO_TCP) -> socket.socket:
        """Return a connected socket without Nagle's delay."""
        client = self.make(family_of(address), protocol)
        client.connect((address, port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client


def limit_calls(made: socket.socket) -> None:
    """Have blocking calls on a socket give up with EAGAIN when the time limit has passed."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        made.setsockopt(socket.SOL_SOCKET, option, KERNEL_TIMEOUT)


def family_of(address: str) -> int:
    """Return the family of a socket for a numeric address; a v4-mapped one is IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(path: str) -> None:
    """Make sockets for the test that listens at `path` until it goes away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.connect(path)
        while request := channel.recv(REQUEST.size):
            family, protocol = REQUEST.unpack(request)
            with socket.socket(family, socket.SOCK_STREAM, protocol) as made:
                socket.send_fds(channel, [b"."], [made.fileno()])


if __name__ == "__main__":
    serve(sys.argv[1])
