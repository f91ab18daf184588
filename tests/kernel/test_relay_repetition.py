"""Packets that begin with bytes of an earlier one: whoever they are for reads each byte once."""

from __future__ import annotations

import contextlib
import ctypes
import random
import socket
from typing import TYPE_CHECKING

import pytest

from meshaccel.accelerators.sockops.observe import Places
from meshaccel.accelerators.sockops.relays import layout
from meshaccel.accelerators.sockops.relays.observe import Places as RelayPlaces
from meshaccel.bpf.maps import Map
from tests.kernel.installations import absent
from tests.kernel.relays import Servers, assert_silent, relay_counters
from tests.support.repetition import repeating

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshaccel.accelerators.sockops.service import Sockops

STREAM = random.Random(0).randbytes(300_000)
SENT = 100_000
REPEATED = 60_000


@pytest.mark.parametrize(
    "repeated",
    [1, 4095, 4096, REPEATED],
    ids=["one byte", "one cut", "two cuts", "many cuts"],
)
def test_a_partner_reads_each_byte_once(relayed: Sockops, ends: Servers, repeated: int) -> None:
    with joined_after(ends, SENT) as (from_client, to_client), repeat(ends, from_client, repeated) as sender:
        sender.sendall(STREAM[SENT - repeated :])
        assert read_all(to_client, len(STREAM) - SENT) == STREAM[SENT:]
        sender.sendall(b"and on")
        assert read_all(to_client, 6) == b"and on"
        assert relay_counters(relayed)["repeated_bytes"] == repeated
        assert relay_counters(relayed)["joined_bytes"]["from"] == len(STREAM) + 6


def test_a_server_without_a_partner_reads_each_byte_once(ends: Servers) -> None:
    client, server = ends.connect_from()
    with server:
        client.sendall(STREAM[:SENT])
        assert read_all(server, SENT) == STREAM[:SENT]
        assert_continues(ends, client, server)


def test_a_server_that_has_ended_its_own_stream_reads_each_byte_once(ends: Servers) -> None:
    client, server = ends.connect_from()
    with server:
        server.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        client.sendall(STREAM[:SENT])
        assert read_all(server, SENT) == STREAM[:SENT]
        assert_continues(ends, client, server)


def test_a_server_whose_relay_is_gone_reads_each_byte_once(relayed: Sockops, ends: Servers) -> None:
    """Its socket keeps the relay's first program to its end."""
    client, server = ends.connect_from()
    with server:
        client.sendall(STREAM[:SENT])
        absent(relayed)
        assert read_all(server, SENT) == STREAM[:SENT]
        assert_continues(ends, client, server)


def test_an_end_of_the_stream_with_nothing_but_old_bytes_is_seen(ends: Servers) -> None:
    client, server = ends.connect_from()
    with server:
        client.sendall(STREAM[:100])
        assert read_all(server, 100) == STREAM[:100]
        with repeat(ends, client, 50) as sender:
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            sender.sendall(STREAM[50:100])
            sender.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""


def test_a_connection_whose_repetition_cannot_be_cut_off_is_dead_not_wrong(
    relayed: Sockops, ends: Servers
) -> None:
    """Memory cannot be refused to the kernel at one place, so what it would leave is written by hand."""
    with joined_after(ends, SENT) as (from_client, to_client):
        path = RelayPlaces.below(Places.of(relayed.paths).root).map("relay_ends")
        with Map.pinned(path, ctypes.c_uint64, layout.End) as known:
            for cookie, end in known.items():
                end.broken = 1
                known.write(cookie, end)
        from_client.sendall(b"never")
        assert_silent(to_client)


@contextlib.contextmanager
def joined_after(ends: Servers, sent: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Join a pair and send the stream's first bytes from one client to the other."""
    with ends.pair() as pair:
        pair.from_client.sendall(STREAM[:sent])
        assert read_all(pair.to_client, sent) == STREAM[:sent]
        yield pair.from_client, pair.to_client


def repeat(
    ends: Servers, client: socket.socket, repeated: int
) -> contextlib.AbstractContextManager[socket.socket]:
    """Continue a client's connection so many bytes before the last it sent."""
    return repeating(ends.topology.client, client, repeated)


def assert_continues(ends: Servers, client: socket.socket, server: socket.socket) -> None:
    """The rest of the stream arrives whole when it is sent from an earlier byte on."""
    with repeat(ends, client, REPEATED) as sender:
        sender.sendall(STREAM[SENT - REPEATED :])
        sender.shutdown(socket.SHUT_WR)
        assert read_all(server, len(STREAM)) == STREAM[SENT:]


def read_all(reader: socket.socket, length: int) -> bytes:
    """Read so many bytes, or all up to the end of the stream."""
    received = bytearray()
    while len(received) < length and (piece := reader.recv(length - len(received))):
        received += piece
    return bytes(received)
