"""A TCP connection whose two ends are both the test's, and traffic over it that is checked."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from tests.support.socket_maker import TIME_LIMIT_SECONDS, limit_calls
from tests.support.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tests.support.socket_maker import SocketMaker

READ_BYTES = 65_536
#: One write of at most this size is one message to the kernel's sk_msg.
LARGEST_MESSAGE = 16_000
SECONDS = 60.0


class End:
    """One end of a connection: its socket, the stream it writes and the stream it has to read."""

    def __init__(self, owned: socket.socket, seed: int, *, active: bool) -> None:
        """Take a connected socket; both ends of a connection have the same seed."""
        self.socket = owned
        self.outgoing = Stream(2 * seed + active)
        self.incoming = Stream(2 * seed + (not active))

    def send(self, length: int) -> None:
        """Write the next bytes, all of them."""
        self.socket.sendall(self.outgoing.next(length))

    def read(self, most: int) -> bytes:
        """Read and check what there is, at least a byte; nothing means the end of the stream.

        The kernel's recvmsg of a socket in a sockhash waits once: whatever else wakes the socket,
        such as an acknowledged FIN, makes it return EAGAIN before any time limit.
        """
        deadline = time.monotonic() + TIME_LIMIT_SECONDS
        while True:
            try:
                received = self.socket.recv(most)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                continue
            self.incoming.check(received)
            return received

    def receive(self, length: int) -> None:
        """Read and check so many bytes; raises ConnectionError when the stream ends before."""
        end = self.incoming.position + length
        while self.incoming.position < end:
            if not self.read(min(READ_BYTES, end - self.incoming.position)):
                raise ConnectionError(f"the stream ended after byte {self.incoming.position}, not {end}")

    def finish(self) -> None:
        """End the stream it writes."""
        self.socket.shutdown(socket.SHUT_WR)

    def receive_rest(self) -> int:
        """Read and check up to the end of the stream; return how long the whole stream was."""
        while self.read(READ_BYTES):
            pass
        return self.incoming.position


class Connection:
    """Both ends of a connection. A context manager that closes them."""

    def __init__(self, client: socket.socket, server: socket.socket, seed: int = 1) -> None:
        """Take two connected sockets; seeds tell the bytes of connections apart."""
        self.client = End(client, seed, active=True)
        self.server = End(server, seed, active=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both ends."""
        self.client.socket.close()
        self.server.socket.close()

    def exchange(self, rounds: int = 20) -> int:
        """Send messages of many sizes to and fro, one at a time; return the bytes of both ways."""
        sizes = random.Random(rounds)
        total = 0
        for _ in range(rounds):
            for writer, reader in ((self.client, self.server), (self.server, self.client)):
                length = sizes.randint(1, LARGEST_MESSAGE)
                writer.send(length)
                reader.receive(length)
                total += length
        return total

    def bulk(self, length: int, size: int = READ_BYTES) -> None:
        """Move `length` bytes each way at once, written `size` at a time."""
        ends = (self.client, self.server)
        with ThreadPoolExecutor(2 * len(ends)) as threads:
            work = [threads.submit(send_in_pieces, end, length, size) for end in ends]
            work += [threads.submit(end.receive, length) for end in ends]
            for future in work:
                future.result(SECONDS)


def send_in_pieces(end: End, length: int, size: int) -> None:
    """Write `length` bytes, `size` at a time."""
    for begin in range(0, length, size):
        end.send(min(size, length - begin))


def accept(listener: socket.socket) -> socket.socket:
    """Accept a connection, with the same time limits as every other socket of a test."""
    server, _ = listener.accept()
    limit_calls(server)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def open_connection(
    client: SocketMaker, listener: socket.socket, address: str, port: int | None = None, *, seed: int = 1
) -> Connection:
    """Connect to a listener, by default at the port it has, and accept."""
    made = client.connect(address, listener.getsockname()[1] if port is None else port)
    return Connection(made, accept(listener), seed)


@contextlib.contextmanager
def connected(
    client: SocketMaker, server: SocketMaker, address: str, *, listen_at: str = "::", seed: int = 1
) -> Iterator[Connection]:
    """Make a listener in one place and a connection to it from another meanwhile."""
    with (
        server.listen(listen_at) as listener,
        open_connection(client, listener, address, seed=seed) as connection,
    ):
        yield connection
