"""Two servers of a test, joined by a relay, and pairs of clients that talk through them."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.kernel.topologies import Topology, one_pod
from tests.support.connections import Connection, accept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from meshaccel.model import Json
    from tests.kernel.topologies import Cgroups

FROM_PORT = 1234
TO_PORT = 4321
RELAY = {"from": f"127.0.0.1:{FROM_PORT}", "to": f"127.0.0.1:{TO_PORT}"}
MESSAGE = b"for whoever it is meant"
SHORT_SECONDS = 0.2


def relay_status(node: Sockops, number: int = 0) -> dict[str, Json]:
    """Return what the status says of one relay."""
    found: dict[str, Json] = node.status()["relays"][number]
    return found


def relay_counters(node: Sockops) -> dict[str, Json]:
    """Return the counters of the first relay."""
    counters: dict[str, Json] = relay_status(node)["counters"]
    return counters


class Pair:
    """A client of each server, and the connections that the servers accepted of them."""

    def __init__(self, clients: Connection, from_server: socket.socket, to_server: socket.socket) -> None:
        """Take the sockets; the clients are the two ends of what is, in effect, one connection."""
        self.clients = clients
        self.from_server = from_server
        self.to_server = to_server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clients.close()
        self.from_server.close()
        self.to_server.close()

    @property
    def from_client(self) -> socket.socket:
        """The socket of the client of ``from``."""
        return self.clients.client.socket

    @property
    def to_client(self) -> socket.socket:
        """The socket of the client of ``to``."""
        return self.clients.server.socket

    def assert_joined(self) -> None:
        """Each client reads what the other sends."""
        self.clients.exchange(4)

    def assert_apart(self) -> None:
        """Each server reads what its client sends, and the other client does not."""
        for client, server in ((self.from_client, self.from_server), (self.to_client, self.to_server)):
            client.sendall(MESSAGE)
            assert server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        assert_silent(self.from_client)
        assert_silent(self.to_client)


@dataclass(frozen=True)
class Servers:
    """Both servers of a relay, listening."""

    topology: Topology
    from_listener: socket.socket
    to_listener: socket.socket

    def connect_from(self) -> tuple[socket.socket, socket.socket]:
        """Return a new client of ``from`` and the connection accepted of it."""
        return self._connect(self.from_listener)

    def connect_to(self) -> tuple[socket.socket, socket.socket]:
        """Return a new client of ``to`` and the connection accepted of it."""
        return self._connect(self.to_listener)

    def pair(self, seed: int = 1) -> Pair:
        """Connect a client to each server; seeds tell the bytes of pairs apart."""
        from_client, from_server = self.connect_from()
        to_client, to_server = self.connect_to()
        return Pair(Connection(from_client, to_client, seed), from_server, to_server)

    def _connect(self, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
        address, port = listener.getsockname()[:2]
        client = self.topology.client.connect(address, port)
        return client, accept(listener)


@contextlib.contextmanager
def servers(
    cgroups: Cgroups, from_address: str = "127.0.0.1", to_address: str = "127.0.0.1"
) -> Iterator[Servers]:
    """Listen at both ends of RELAY, in a pod of their own, meanwhile."""
    with (
        one_pod(cgroups) as topology,
        topology.server.listen(from_address, FROM_PORT) as from_listener,
        topology.server.listen(to_address, TO_PORT) as to_listener,
    ):
        yield Servers(topology, from_listener, to_listener)


def assert_silent(reader: socket.socket) -> None:
    """Nothing arrives here for a while."""
    reader.settimeout(SHORT_SECONDS)
    try:
        received = reader.recv(1)
    except TimeoutError:
        return
    finally:
        reader.settimeout(None)
    raise AssertionError(f"{received!r} arrived")
