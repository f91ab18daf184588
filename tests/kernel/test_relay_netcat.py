"""Two `nc -l` on two ports, as anybody can try it by hand: their clients are joined."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.installations import installation, present
from tests.kernel.observation import wait_until
from tests.kernel.relays import FROM_PORT, TO_PORT, relay_counters, relay_status
from tests.support.namespaces import NetworkNamespace
from tests.support.processes import ManagedProcess, Placement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups
    from tests.support.cgroups import TestCgroup

STREAM_BYTES = 30_000_000
SECONDS = 30.0
ADDRESSES = [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("127.0.0.1", "::1")]
PORTS = (FROM_PORT, TO_PORT)


class Netcats:
    """Programs in one namespace; a client's standard input is a pipe that the test writes."""

    def __init__(self, pod: NetworkNamespace, cgroups: Cgroups, directory: Path) -> None:
        self._pod = pod
        self._cgroups = cgroups
        self._directory = directory

    def server(self, address: str, port: int) -> ManagedProcess:
        """A server of one connection that reads no input of its own."""
        return ManagedProcess(["nc", "-d", "-l", address, str(port)], self._place(self._cgroups.server))

    @contextlib.contextmanager
    def client(self, address: str, port: int) -> Iterator[tuple[ManagedProcess, int]]:
        """Connect a client meanwhile; also gives the descriptor that it reads from."""
        pipe = self._directory / f"input-{port}"
        os.mkfifo(pipe)
        # Opened for both directions: neither side waits for the other, and no end is seen too early.
        descriptor = os.open(pipe, os.O_RDWR)
        command = ["sh", "-c", f'exec nc {address} {port} < "$0"', str(pipe)]
        with ManagedProcess(command, self._place(self._cgroups.client)) as process:
            try:
                yield process, descriptor
            finally:
                os.close(descriptor)
                pipe.unlink()

    def _place(self, cgroup: TestCgroup) -> Placement:
        return Placement(self._pod, cgroup)


@pytest.fixture
def netcats(own_cgroups: Cgroups, tmp_path: Path) -> Iterator[Netcats]:
    """A namespace for the programs."""
    with NetworkNamespace("pod") as pod:
        yield Netcats(pod, own_cgroups, tmp_path)


@contextlib.contextmanager
def relay_between(cgroups: Cgroups, addresses: tuple[str, str]) -> Iterator[Sockops]:
    """Relay the two ports meanwhile."""
    written = [f"[{address}]" if ":" in address else address for address in addresses]
    relay = {"from": f"{written[0]}:{FROM_PORT}", "to": f"{written[1]}:{TO_PORT}"}
    with installation() as node:
        present(node, [cgroups.server.relative_path], relays=[relay])
        yield node


def has_accepted(server: ManagedProcess) -> bool:
    """Whether a server has a socket beside the one that it listens at."""
    files = Path(f"/proc/{server.pid}/fd").iterdir()
    return sum(str(link.readlink()).startswith("socket:") for link in files) > 1


def write(descriptor: int, content: bytes) -> None:
    """Write all of it into a pipe."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def digest_when_complete(process: ManagedProcess, length: int) -> str:
    """Wait until a program has written so many bytes; return their digest."""
    wait_until(lambda: process.output_path.stat().st_size >= length, f"{length} bytes arrive", SECONDS)
    return hashlib.sha256(process.output_path.read_bytes()).hexdigest()


@pytest.mark.parametrize("addresses", ADDRESSES)
def test_streams_cross_between_the_clients_of_two_netcats(
    own_cgroups: Cgroups, netcats: Netcats, addresses: tuple[str, str]
) -> None:
    contents = [os.urandom(STREAM_BYTES), os.urandom(STREAM_BYTES)]
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(relay_between(own_cgroups, addresses))
        places = list(zip(addresses, PORTS, strict=True))
        servers = [stack.enter_context(netcats.server(*place)) for place in places]
        for server, port in zip(servers, PORTS, strict=True):
            server.wait_for_port(port)
        clients = [stack.enter_context(netcats.client(*place)) for place in places]
        wait_until(lambda: all(map(has_accepted, servers)), "both have accepted")
        for (_, descriptor), content in zip(clients, contents, strict=True):
            write(descriptor, content)
        for (reader, _), content in zip(clients, reversed(contents), strict=True):
            assert digest_when_complete(reader, STREAM_BYTES) == hashlib.sha256(content).hexdigest()
        assert relay_counters(node)["joined_bytes"] == {"from": STREAM_BYTES, "to": STREAM_BYTES}
        assert [server.output_path.read_bytes() for server in servers] == [b"", b""]
        assert all(server.is_running() for server in servers)


def test_a_netcat_keeps_what_came_before_its_partner_and_after_it(
    own_cgroups: Cgroups, netcats: Netcats
) -> None:
    addresses = ADDRESSES[0]
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(relay_between(own_cgroups, addresses))
        places = list(zip(addresses, PORTS, strict=True))
        first, second = (stack.enter_context(netcats.server(*place)) for place in places)
        for server, port in zip((first, second), PORTS, strict=True):
            server.wait_for_port(port)
        _, own_input = stack.enter_context(netcats.client(*places[0]))
        write(own_input, b"alone, ")
        wait_until(lambda: first.output_path.read_bytes() == b"alone, ", "the server has it")
        with netcats.client(*places[1]) as (other, _):
            wait_until(lambda: has_accepted(second), "the partner is accepted")
            write(own_input, b"joined, ")
            wait_until(lambda: other.output_path.read_bytes() == b"joined, ", "the partner has it")
        # That client is gone, so its netcat ends, and with it the join.
        second.wait(SECONDS)
        wait_until(lambda: relay_status(node)["joined"] == 0, "parted")
        write(own_input, b"alone again")
        wait_until(lambda: first.output_path.read_bytes() == b"alone, alone again", "the server has it")
