"""A reader that is behind costs bounded memory and slows its writer down, as TCP does."""

from __future__ import annotations

import contextlib
import select
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.observation import Counted, assert_redirected, wait_until
from tests.kernel.topologies import Cgroups, Topology, one_pod
from tests.support import tcp_view
from tests.support.accelerator import accelerated
from tests.support.connections import SECONDS, Connection, End, connected, send_in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

LIMIT = 1_000_000
LARGEST_TCP_BUFFER = 262_144
#: A packet may be taken in when the buffer is all but full, and takes its head and pages with it.
LARGEST_PACKET = 65_536 + 32_768


@pytest.fixture(scope="module")
def node(cgroups: Cgroups) -> Iterator[Sockops]:
    """sockops with a limit of its own."""
    with accelerated(cgroups.paths, receive_memory_limit=LIMIT) as sockops:
        yield sockops


@contextlib.contextmanager
def small_buffers(cgroups: Cgroups) -> Iterator[tuple[Topology, Connection]]:
    """A connection whose TCP buffers do not grow beyond a known size."""
    with one_pod(cgroups) as topology:
        for direction in ("rmem", "wmem"):
            sizes = f"4096 65536 {LARGEST_TCP_BUFFER}"
            topology.client.namespace.set_sysctl(f"net.ipv4.tcp_{direction}", sizes)
        with connected(topology.client, topology.server, topology.address4) as connection:
            yield topology, connection


def fill(writer: End, size: int) -> None:
    """Write without blocking until the kernel says EAGAIN; the socket blocks again afterwards."""
    writer.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sent = writer.socket.send(writer.outgoing.next(size))
            writer.outgoing.back(size - sent)
    # The last piece was not taken at all.
    writer.outgoing.back(size)
    writer.socket.setblocking(True)


def is_writable(writer: End) -> bool:
    """Whether poll(2) says that a write would not block."""
    poll = select.poll()
    poll.register(writer.socket, select.POLLOUT)
    return bool(poll.poll(0))


@pytest.mark.parametrize("size", [2_000, 16_000, 200_000])
def test_a_peer_that_never_reads(node: Sockops, cgroups: Cgroups, size: int) -> None:
    with small_buffers(cgroups) as (topology, connection):
        counted = Counted(node)
        writer, reader = connection.client, connection.server
        fill(writer, size)
        memory = tcp_view.receive_memory(topology.server.namespace, reader.socket)
        # As far as it may, and no further: what does not fit goes by TCP, and TCP's window closes.
        assert LIMIT - size <= counted["redirected_bytes"] <= LIMIT
        assert memory <= LIMIT + LARGEST_TCP_BUFFER + LARGEST_PACKET
        assert counted["tcp_messages_memory"] > 0
        assert not is_writable(writer)
        reader.receive(writer.outgoing.position)
        wait_until(lambda: is_writable(writer), "the writer may go on")
        # The kernel keeps the verdict of a message that it took in part for the next one.
        connection.exchange(1)
        assert_redirected(node, topology, connection)


def test_without_acceleration_a_writer_is_stopped_by_the_same_error(node: Sockops, cgroups: Cgroups) -> None:
    """What the tests here call TCP's own way, shown on TCP."""
    with small_buffers(cgroups) as (_, connection):
        node.switch(Mode.OFF)
        try:
            fill(connection.client, 16_000)
            assert not is_writable(connection.client)
            connection.server.receive(connection.client.outgoing.position)
            wait_until(lambda: is_writable(connection.client), "the writer may go on")
        finally:
            node.switch(Mode.ON)


def kernel_bytes_of_messages() -> int:
    """Return what the slab of struct sk_msg takes; others use that slab as well, but little."""
    for line in Path("/proc/slabinfo").read_text(encoding="ascii").splitlines():
        name, _, objects, size, *_ = line.split()
        if name == "kmalloc-1k":
            return int(objects) * int(size)
    raise ValueError("/proc/slabinfo: no kmalloc-1k")


def test_tiny_messages_cannot_get_round_the_limit(node: Sockops, cgroups: Cgroups) -> None:
    """A message costs the kernel about a kibibyte that it accounts to nobody, also when it is one byte."""
    messages = 100_000
    with small_buffers(cgroups) as (_, connection):
        counted = Counted(node)
        writer = connection.client
        before = kernel_bytes_of_messages()
        for _ in range(messages):
            writer.send(1)
        grown = kernel_bytes_of_messages() - before
        assert counted["redirected_messages"] > 0
        assert counted["tcp_messages_memory"] > 0
        # One byte counts for a kibibyte, and the slab's other users get as much again.
        assert grown < 2 * LIMIT + 10_000_000
        connection.server.receive(messages)


def test_a_blocked_writer_goes_on_when_its_reader_reads(node: Sockops, cgroups: Cgroups) -> None:
    length = 8 * LIMIT
    with small_buffers(cgroups) as (topology, connection), ThreadPoolExecutor(1) as thread:
        writer, reader = connection.client, connection.server
        writing = thread.submit(send_in_pieces, writer, length, 16_000)
        wait_until(lambda: not is_writable(writer), "the writer blocks")
        assert not writing.done()
        reader.receive(length)
        writing.result(SECONDS)
        assert_redirected(node, topology, connection)


def test_a_slow_reader_holds_memory_within_the_limit(node: Sockops, cgroups: Cgroups) -> None:
    length = 6 * LIMIT
    with small_buffers(cgroups) as (topology, connection), ThreadPoolExecutor(1) as thread:
        counted = Counted(node)
        writer, reader = connection.client, connection.server
        writing = thread.submit(send_in_pieces, writer, length, 16_000)
        wait_until(lambda: not is_writable(writer), "the writer blocks")
        highest = tcp_view.receive_memory(topology.server.namespace, reader.socket)
        while reader.incoming.position < length:
            reader.receive(min(200_000, length - reader.incoming.position))
            memory = tcp_view.receive_memory(topology.server.namespace, reader.socket)
            highest = max(highest, memory)
            time.sleep(0.002)
        writing.result(SECONDS)
        assert LIMIT / 2 < highest <= LIMIT + LARGEST_TCP_BUFFER + LARGEST_PACKET
        assert counted["redirected_bytes"] > 0
        assert counted["tcp_bytes"] > 0


def test_an_unread_connection_does_not_hold_up_another(node: Sockops, cgroups: Cgroups) -> None:
    with (
        small_buffers(cgroups) as (topology, stuck),
        connected(topology.client, topology.server, topology.address4, seed=9) as flowing,
    ):
        fill(stuck.client, 16_000)
        assert_redirected(node, topology, flowing)
        assert not is_writable(stuck.client)
