"""Nothing is lost, doubled or reordered where redirected and TCP's own bytes meet.

The receive memory limit is the smallest there is, so that streams change paths all the time.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.kernel.observation import Counted, assert_tables_empty
from tests.kernel.topologies import WIRE, Cgroups, Topology, one_pod, two_pods
from tests.support.accelerator import accelerated
from tests.support.connections import SECONDS, Connection, End, accept, open_connection
from tests.support.streams import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

SMALLEST_MEMORY_LIMIT = 65_536
BOTH_PROCESSORS = "3"
RACES = 300
MESSAGES = 25
LARGEST_SMALL_MESSAGE = 3_000
CONNECTIONS = 6
STREAM_BYTES = 4_000_000
LARGEST_WRITE = 100_000

#: Writes so many bytes of an end's stream in its own way.
Write = Callable[[End, int], None]


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Sockops]:
    """sockops with so little memory allowed that TCP has to carry a part of every stream."""
    with accelerated(cgroups.paths, receive_memory_limit=SMALLEST_MEMORY_LIMIT) as sockops:
        yield sockops


@contextlib.contextmanager
def steered_loopback(cgroups: Cgroups) -> Iterator[Topology]:
    """Packets of one pod, handled by whichever processor (RPS)."""
    with one_pod(cgroups) as topology:
        topology.client.namespace.set_receive_packet_steering("lo", BOTH_PROCESSORS)
        yield topology


@contextlib.contextmanager
def steered_wire(cgroups: Cgroups) -> Iterator[Topology]:
    """Packets between two pods, handled by whichever processor (RPS) at both ends."""
    with two_pods(cgroups) as topology:
        for place in (topology.client, topology.server):
            place.namespace.set_receive_packet_steering(WIRE, BOTH_PROCESSORS)
        yield topology


TOPOLOGIES = pytest.mark.parametrize(
    "topology_of",
    [one_pod, steered_loopback, two_pods, steered_wire],
    ids=["loopback", "loopback-steered", "wire", "wire-steered"],
)
MakeTopology = Callable[[Cgroups], contextlib.AbstractContextManager[Topology]]


def talk_at_once(end: End, seed: int) -> int:
    """Write small messages without a pause, end the stream, and read what the other wrote."""
    sizes = random.Random(seed)
    for _ in range(MESSAGES):
        end.send(sizes.randint(1, LARGEST_SMALL_MESSAGE))
    end.finish()
    return end.receive_rest()


def call(topology: Topology, port: int, seed: int, *, acknowledge_at_once: bool) -> End:
    """Connect and talk; without the acknowledgement, data is the last packet of the handshake."""
    client = topology.client.make(socket.AF_INET)
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not acknowledge_at_once:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        client.connect((topology.address4, port))
        end = End(client, seed, active=True)
        talk_at_once(end, seed)
    return end


def answer(listener: socket.socket, seed: int) -> End:
    """Accept and talk."""
    with accept(listener) as server:
        end = End(server, seed, active=False)
        talk_at_once(end, -seed)
    return end


def race(topology: Topology, listener: socket.socket, *, acknowledge_at_once: bool) -> int:
    """Have both ends write as early as they can, many times; return the bytes of all of them."""
    total = 0
    port = listener.getsockname()[1]
    with ThreadPoolExecutor(2) as threads:
        for seed in range(RACES):
            called = threads.submit(call, topology, port, seed, acknowledge_at_once=acknowledge_at_once)
            answered = threads.submit(answer, listener, seed)
            client, server = called.result(SECONDS), answered.result(SECONDS)
            assert client.outgoing.position == server.incoming.position
            assert server.outgoing.position == client.incoming.position
            total += client.outgoing.position + server.outgoing.position
    return total


@TOPOLOGIES
def test_first_writes_that_race_with_accept(
    node: Sockops, cgroups: Cgroups, topology_of: MakeTopology
) -> None:
    with topology_of(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        counted = Counted(node)
        total = race(topology, listener, acknowledge_at_once=True)
        assert counted["connections_paired"] == RACES
        assert counted["redirected_bytes"] + counted["tcp_bytes"] == total
        assert counted["redirected_bytes"] > 0
    assert_tables_empty(node)


@TOPOLOGIES
def test_data_as_the_last_packet_of_the_handshake(
    node: Sockops, cgroups: Cgroups, topology_of: MakeTopology
) -> None:
    """QUICKACK off: what is written first goes by TCP, before the server's socket is there."""
    with topology_of(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        counted = Counted(node)
        total = race(topology, listener, acknowledge_at_once=False)
        assert counted["connections_paired"] == RACES
        assert counted["redirected_bytes"] + counted["tcp_bytes"] == total
        assert counted["redirected_bytes"] > 0
        assert counted["tcp_messages_no_peer"] > 0
    assert_tables_empty(node)


@TOPOLOGIES
def test_a_listener_that_waits_for_data(node: Sockops, cgroups: Cgroups, topology_of: MakeTopology) -> None:
    """TCP_DEFER_ACCEPT: the server's socket appears with the first data, and finds it in its queue."""
    with topology_of(cgroups) as topology, topology.server.listen("0.0.0.0") as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        counted = Counted(node)
        total = race(topology, listener, acknowledge_at_once=True)
        assert counted["connections_paired"] == RACES
        assert counted["redirected_bytes"] + counted["tcp_bytes"] == total
        assert counted["redirected_bytes"] > 0
        assert counted["tcp_messages_no_peer"] >= RACES
    assert_tables_empty(node)


def write_whole(end: End, length: int) -> None:
    """send(2), as much as it takes."""
    end.send(length)


def write_more_to_come(end: End, length: int) -> None:
    """Half of it with MSG_MORE, which TCP may hold back, then the rest."""
    half = length // 2
    end.socket.sendall(end.outgoing.next(half), socket.MSG_MORE)
    end.send(length - half)


def write_vector(end: End, length: int) -> None:
    """writev(2) of several buffers."""
    data = memoryview(end.outgoing.next(length))
    cuts = [0, length // 7, length // 3, length // 2, length]
    buffers = [data[begin:stop] for begin, stop in itertools.pairwise(cuts)]
    sent = os.writev(end.socket.fileno(), buffers)
    end.outgoing.back(length - sent)
    if sent < length:
        end.send(length - sent)


def write_from_file(end: End, length: int) -> None:
    """sendfile(2) of a file that holds the stream's bytes."""
    stop = end.outgoing.position + length
    with contextlib.closing(os.fdopen(os.memfd_create("stream"), "wb", buffering=0)) as file:
        file.write(BLOCK)
        while end.outgoing.position < stop:
            place, wanted = end.outgoing.place, stop - end.outgoing.position
            end.outgoing.next(os.sendfile(end.socket.fileno(), file.fileno(), place, wanted))


WRITES: dict[str, Write] = {
    "send": write_whole,
    "more-to-come": write_more_to_come,
    "vector": write_vector,
    "file": write_from_file,
}


def write_stream(end: End, seed: int, writes: list[Write]) -> None:
    """Write a stream in pieces of many sizes, each in one of the ways given."""
    choice = random.Random(seed)
    while end.outgoing.position < STREAM_BYTES:
        left = STREAM_BYTES - end.outgoing.position
        length = min(left, choice.choice((choice.randint(2, 200), choice.randint(2, LARGEST_WRITE))))
        choice.choice(writes)(end, length)
    end.finish()


def read_stream(end: End, seed: int) -> None:
    """Read to the end, in pieces of many sizes."""
    choice = random.Random(seed)
    while end.read(choice.randint(1, LARGEST_WRITE)):
        pass
    assert end.incoming.position == STREAM_BYTES


@pytest.mark.parametrize(
    ("writes", "topology_of"),
    [
        *(pytest.param([write], steered_loopback, id=name) for name, write in WRITES.items()),
        pytest.param([*WRITES.values()], one_pod, id="mixed-loopback"),
        pytest.param([*WRITES.values()], steered_loopback, id="mixed-loopback-steered"),
        pytest.param([*WRITES.values()], two_pods, id="mixed-wire"),
        pytest.param([*WRITES.values()], steered_wire, id="mixed-wire-steered"),
    ],
)
def test_both_directions_of_several_connections_at_once(
    node: Sockops, cgroups: Cgroups, writes: list[Write], topology_of: MakeTopology
) -> None:
    with (
        contextlib.ExitStack() as stack,
        topology_of(cgroups) as topology,
        topology.server.listen("0.0.0.0") as listener,
    ):
        counted = Counted(node)
        connections: list[Connection] = [
            stack.enter_context(open_connection(topology.client, listener, topology.address4, seed=seed))
            for seed in range(CONNECTIONS)
        ]
        with ThreadPoolExecutor(4 * CONNECTIONS) as threads:
            work = [
                threads.submit(*task)
                for seed, connection in enumerate(connections)
                for end in (connection.client, connection.server)
                for task in ((write_stream, end, seed, writes), (read_stream, end, seed))
            ]
            for future in work:
                future.result(SECONDS)
        # Both paths were taken, else this shows nothing of where they meet.
        assert counted["redirected_bytes"] > 0
        assert counted["tcp_bytes"] > 0
    assert_tables_empty(node)
