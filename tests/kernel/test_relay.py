"""Relays: two servers joined in the kernel. Their clients talk to each other, byte for byte."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernel.installations import present
from tests.kernel.observation import wait_until
from tests.kernel.relays import (
    FROM_PORT,
    MESSAGE,
    RELAY,
    TO_PORT,
    Pair,
    Servers,
    assert_silent,
    relay_counters,
    relay_status,
    servers,
)
from tests.support.connections import READ_BYTES, Connection, End, accept, send_in_pieces

if TYPE_CHECKING:
    from meshaccel.accelerators.sockops.service import Sockops
    from tests.kernel.topologies import Cgroups

QUEUE_ENTRIES = 256
#: More than every buffer on the way holds, so that the reader sets the pace.
UNREAD_BYTES = 64_000_000
LIMIT = 1 << 20
#: Half of what may wait beyond the limit: a sender's window, which it may have under way.
WINDOW = 4 << 20
#: What the partner's own connection holds beside: its send buffer and its reader's receive buffer.
SOCKET_BUFFERS = 16_000_000


# ---- joined ----


def test_what_one_client_sends_the_other_reads(relayed: Sockops, ends: Servers) -> None:
    with ends.pair() as pair:
        pair.clients.exchange()
        pair.clients.bulk(50_000_000)
        counted = relay_counters(relayed)
        assert counted["joined_bytes"] == {
            "from": pair.clients.client.outgoing.position,
            "to": pair.clients.server.outgoing.position,
        }
        assert counted["own_bytes"] == {"from": 0, "to": 0}
        assert_silent(pair.from_server)
        assert_silent(pair.to_server)
        assert relay_status(relayed)["joined"] == 1


@pytest.mark.parametrize(
    ("from_address", "to_address"),
    [("::1", "::1"), ("127.0.0.1", "::1"), ("::1", "127.0.0.1")],
)
def test_every_version_of_ip_with_every_other(
    own_cgroups: Cgroups, relayed: Sockops, from_address: str, to_address: str
) -> None:
    written = {"127.0.0.1": "127.0.0.1", "::1": "[::1]"}
    relay = {"from": f"{written[from_address]}:1234", "to": f"{written[to_address]}:4321"}
    present(relayed, [own_cgroups.server.relative_path], relays=[relay])
    with servers(own_cgroups, from_address, to_address) as ends, ends.pair() as pair:
        pair.assert_joined()


def test_a_server_for_both_versions_is_found_at_its_ipv4_address(
    own_cgroups: Cgroups, relayed: Sockops
) -> None:
    with servers(own_cgroups, to_address="::ffff:127.0.0.1") as ends, ends.pair() as pair:
        pair.assert_joined()
    assert relay_counters(relayed)["connections_joined"] == 1


def test_many_pairs_under_load_at_once(relayed: Sockops, ends: Servers) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(20) as threads:
        pairs = [stack.enter_context(ends.pair(seed)) for seed in range(20)]
        for work in [threads.submit(pair.clients.bulk, 3_000_000, 1_000) for pair in pairs]:
            work.result(120)
        counted = relay_counters(relayed)
        assert counted["joined_bytes"] == {"from": 60_000_000, "to": 60_000_000}
        assert relay_status(relayed)["joined"] == 20


def test_a_server_may_write_to_its_own_client_meanwhile(relayed: Sockops, ends: Servers) -> None:
    """What the server writes and what is joined both arrive, each in its own order."""
    del relayed
    with ends.pair() as pair:
        for _ in range(50):
            pair.to_server.sendall(MESSAGE)
            assert pair.to_client.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
            pair.assert_joined()


@pytest.mark.machine
def test_more_than_two_gigabytes_one_way(relayed: Sockops, ends: Servers) -> None:
    """Sequence numbers come round to where they count as before."""
    length = (1 << 31) + 100_000_000
    piece = bytes(1 << 20)
    with ends.pair() as pair, ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read_away, pair.to_client, length)
        for _ in range(0, length, len(piece)):
            pair.from_client.sendall(piece)
        assert reading.result(120) >= length
        assert relay_counters(relayed)["own_bytes"] == {"from": 0, "to": 0}


def read_away(reader: socket.socket, length: int) -> int:
    """Read at least so many bytes; return how many."""
    buffer = bytearray(1 << 20)
    total = 0
    while total < length:
        total += reader.recv_into(buffer)
    return total


# ---- who is joined with whom ----


def test_bytes_before_the_partner_is_there_are_the_server_s(relayed: Sockops, ends: Servers) -> None:
    from_client, from_server = ends.connect_from()
    with from_client, from_server:
        from_client.sendall(MESSAGE)
        assert from_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        assert relay_status(relayed)["waiting"] == {"from": 1, "to": 0}
        to_client, to_server = ends.connect_to()
        with to_client, to_server:
            Connection(from_client, to_client).exchange(4)
        assert relay_counters(relayed)["own_bytes"] == {"from": len(MESSAGE), "to": 0}


def test_unread_bytes_of_before_stay_the_server_s(relayed: Sockops, ends: Servers) -> None:
    del relayed
    from_client, from_server = ends.connect_from()
    with from_client, from_server:
        from_client.sendall(MESSAGE)
        to_client, to_server = ends.connect_to()
        with to_client, to_server:
            Connection(from_client, to_client).exchange(4)
            assert from_server.recv(100) == MESSAGE


def test_the_first_that_waits_is_joined_with_the_first(relayed: Sockops, ends: Servers) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [[stack.enter_context(made) for made in ends.connect_to()] for _ in range(5)]
        assert relay_status(relayed)["waiting"] == {"from": 0, "to": 5}
        for seed, (to_client, _) in enumerate(waiting):
            from_client, _ = (stack.enter_context(made) for made in ends.connect_from())
            Connection(from_client, to_client, seed).exchange(2)


def test_one_that_closes_leaves_the_queue(relayed: Sockops, ends: Servers) -> None:
    with contextlib.ExitStack() as stack:
        waiting = [[stack.enter_context(made) for made in ends.connect_from()] for _ in range(4)]
        for number in (0, 2):
            for made in waiting[number]:
                made.close()
        wait_until(lambda: relay_status(relayed)["waiting"]["from"] == 2, "two have left")
        for seed, number in enumerate((1, 3)):
            to_client, _ = (stack.enter_context(made) for made in ends.connect_to())
            Connection(waiting[number][0], to_client, seed).exchange(2)


def test_who_finds_the_queue_full_is_its_server_s(relayed: Sockops, ends: Servers) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(QUEUE_ENTRIES):
            for made in ends.connect_from():
                stack.enter_context(made)
        from_client, from_server = (stack.enter_context(made) for made in ends.connect_from())
        assert relay_status(relayed)["waiting"]["from"] == QUEUE_ENTRIES
        assert relay_counters(relayed)["skipped_queue_full"] == 1
        from_client.sendall(MESSAGE)
        assert from_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE


def test_clients_that_come_and_go_leave_nothing_in_the_queue(relayed: Sockops, ends: Servers) -> None:
    for seed in range(2 * QUEUE_ENTRIES):
        for made in ends.connect_from() if seed % 2 else ends.connect_to():
            made.close()
    wait_until(
        lambda: (
            relay_status(relayed)["waiting"] == {"from": 0, "to": 0} and relay_status(relayed)["joined"] == 0
        ),
        "all have left",
    )
    with ends.pair() as pair:
        pair.assert_joined()


def test_a_server_outside_the_named_cgroups_is_not_relayed(own_cgroups: Cgroups, relayed: Sockops) -> None:
    present(relayed, [own_cgroups.client.relative_path], relays=[RELAY])
    with servers(own_cgroups) as ends, ends.pair() as pair:
        pair.assert_apart()
        assert relay_counters(relayed)["connections"] == {"from": 0, "to": 0}


# ---- accept() and recv() ----


def test_bytes_before_the_partner_s_accept_are_the_server_s(relayed: Sockops, ends: Servers) -> None:
    """The kernel cannot send out of a connection that nobody has accepted; the bytes would be lost."""
    del relayed
    from_client, from_server = ends.connect_from()
    with from_client, from_server, ends.topology.client.connect("127.0.0.1", TO_PORT) as to_client:
        from_client.sendall(MESSAGE)
        assert from_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        with accept(ends.to_listener):
            Connection(from_client, to_client).exchange(4)


def test_bytes_before_the_own_accept_are_the_server_s(relayed: Sockops, ends: Servers) -> None:
    """And a poll of the server then tells the truth: joined bytes are none of it."""
    del relayed
    to_client, to_server = ends.connect_to()
    with to_client, to_server, ends.topology.client.connect("127.0.0.1", FROM_PORT) as from_client:
        from_client.sendall(MESSAGE)
        with accept(ends.from_listener) as from_server:
            assert from_server.recv(100) == MESSAGE
            assert not is_readable(from_server)
            Connection(from_client, to_client).exchange(4)
            assert not is_readable(from_server)


def test_bytes_that_come_with_the_handshake_are_the_server_s(relayed: Sockops, ends: Servers) -> None:
    """The kernel makes the connection only when there is something to read (TCP_DEFER_ACCEPT)."""
    del relayed
    ends.from_listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    to_client, to_server = ends.connect_to()
    with to_client, to_server, ends.topology.client.connect("127.0.0.1", FROM_PORT) as from_client:
        from_client.sendall(MESSAGE)
        with accept(ends.from_listener) as from_server:
            assert from_server.recv(100) == MESSAGE
            assert not is_readable(from_server)
            Connection(from_client, to_client).exchange(4)
            assert not is_readable(from_server)


def is_readable(polled: socket.socket) -> bool:
    """Whether poll() says that there is something to read."""
    poll = select.poll()
    poll.register(polled, select.POLLIN)
    return bool(poll.poll(0))


@pytest.mark.parametrize("blocked", ["from", "to"])
def test_a_server_that_blocks_in_recv_keeps_its_connection(
    relayed: Sockops, ends: Servers, blocked: str
) -> None:
    """The kernel would wake it with EAGAIN at each joined packet."""
    with ends.pair() as pair, ThreadPoolExecutor(1) as threads:
        reader = pair.from_server if blocked == "from" else pair.to_server
        received = threads.submit(reader.recv, len(MESSAGE))
        wait_until(lambda: blocks_in(reader), "the reader blocks")
        pair.from_client.sendall(MESSAGE)
        pair.to_client.sendall(MESSAGE)
        assert received.result(10) == MESSAGE
        other = pair.to_server if blocked == "from" else pair.from_server
        assert other.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        pair.assert_apart()
        assert relay_counters(relayed)["skipped_blocking_reader"] == 1


def blocks_in(used: socket.socket) -> bool:
    """Whether a thread of this process is in a system call whose first argument is this socket."""
    calls = (task / "syscall" for task in Path("/proc/self/task").iterdir())
    return any(call.read_text(encoding="ascii").split()[1:2] == [hex(used.fileno())] for call in calls)


# ---- endings ----


def test_the_server_ends_its_connection_and_the_partner_is_its_own_server_s_again(
    relayed: Sockops, ends: Servers
) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        pair.to_server.close()
        assert pair.clients.server.receive_rest() == pair.clients.client.outgoing.position
        pair.from_client.sendall(MESSAGE)
        assert pair.from_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
        assert relay_counters(relayed)["connections_parted"] == 1


def test_one_that_was_left_is_not_joined_again(relayed: Sockops, ends: Servers) -> None:
    del relayed
    with ends.pair() as pair:
        pair.assert_joined()
        pair.to_server.close()
        pair.to_client.close()
        to_client, to_server = ends.connect_to()
        with to_client, to_server:
            pair.from_client.sendall(MESSAGE)
            assert pair.from_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE
            assert_silent(to_client)


def test_a_client_that_ends_its_stream_still_reads(relayed: Sockops, ends: Servers) -> None:
    """The end of the stream is the server's to see; all that was sent before arrives."""
    del relayed
    with ends.pair() as pair:
        pair.clients.client.send(900_000)
        pair.clients.client.finish()
        pair.clients.server.receive(900_000)
        assert pair.from_server.recv(1) == b""
        # To the kernel, sending nothing is an error of the connection it should be sent by.
        assert pair.to_server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        pair.clients.server.send(900_000)
        pair.clients.client.receive(900_000)
        pair.from_server.close()
        assert pair.clients.client.receive_rest() == 900_000


def test_what_was_sent_before_a_close_arrives(relayed: Sockops, ends: Servers) -> None:
    del relayed
    for seed in range(20):
        with ends.pair(seed) as pair:
            pair.clients.client.send(500_000)
            pair.from_client.close()
            pair.clients.server.receive(500_000)


@pytest.mark.parametrize("who", ["from", "to"])
def test_a_reset_reaches_the_server_and_frees_the_partner(relayed: Sockops, ends: Servers, who: str) -> None:
    with ends.pair() as pair:
        pair.assert_joined()
        resetting, server = (
            (pair.from_client, pair.from_server) if who == "from" else (pair.to_client, pair.to_server)
        )
        other, other_server = (
            (pair.to_client, pair.to_server) if who == "from" else (pair.from_client, pair.from_server)
        )
        resetting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        resetting.close()
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        wait_until(lambda: relay_status(relayed)["joined"] == 0, "parted")
        other.sendall(MESSAGE)
        assert other_server.recv(len(MESSAGE), socket.MSG_WAITALL) == MESSAGE


# ---- memory ----


def test_a_client_that_does_not_read_slows_the_other_down(own_cgroups: Cgroups, relayed: Sockops) -> None:
    """The kernel's own queue for joined bytes has no limit; the relay's has."""
    settings = {"relays": [RELAY], "receive_memory_limit": LIMIT}
    present(relayed, [own_cgroups.server.relative_path], **settings)
    with servers(own_cgroups) as ends, ends.pair() as pair:
        writer, reader = pair.clients.client, pair.clients.server
        sent = send_what_fits(writer)
        queued = relay_counters(relayed)["joined_bytes"]["from"]
        assert queued < LIMIT + 2 * WINDOW + SOCKET_BUFFERS
        assert sent < UNREAD_BYTES
        assert relay_counters(relayed)["acknowledgements_held"] > 0
        # The other direction does not suffer from it.
        reader.send(900_000)
        writer.receive(900_000)
        reader.receive(sent)
        pair.assert_joined()


def test_a_writer_that_gets_its_acknowledgements_another_way_is_bounded_too(
    own_cgroups: Cgroups, relayed: Sockops
) -> None:
    """Each byte its server sends it acknowledges as well, and those cannot be held back."""
    settings = {"relays": [RELAY], "receive_memory_limit": LIMIT}
    present(relayed, [own_cgroups.server.relative_path], **settings)
    with servers(own_cgroups) as ends, ends.pair() as pair, ThreadPoolExecutor(1) as threads:
        writer, reader = pair.clients.client, pair.clients.server
        done = threading.Event()
        answering = threads.submit(answer, pair, done)
        try:
            sent = send_what_fits(writer)
        finally:
            done.set()
            answering.result(30)
        counted = relay_counters(relayed)
        assert counted["packets_dropped"] > 0
        assert counted["joined_bytes"]["from"] < LIMIT + 2 * WINDOW + SOCKET_BUFFERS
        reader.receive(sent)


def answer(pair: Pair, done: threading.Event) -> None:
    """Have a server send its client a message at a time, which the client reads."""
    while not done.is_set():
        pair.from_server.sendall(MESSAGE)
        wanted = len(MESSAGE)
        while wanted:
            wanted -= len(received_now(pair.from_client, wanted))


def received_now(reader: socket.socket, most: int) -> bytes:
    """Read what there is; nothing, when there is nothing within a second."""
    return reader.recv(most) if select.select([reader], [], [], 1.0)[0] else b""


def send_what_fits(end: End) -> int:
    """Write until nothing more is taken for a while; return how many bytes were."""
    end.socket.settimeout(1.0)
    with contextlib.suppress(TimeoutError):
        while end.outgoing.position < UNREAD_BYTES:
            piece = end.outgoing.next(READ_BYTES)
            end.outgoing.back(len(piece))
            end.outgoing.position += end.socket.send(piece)
    end.socket.settimeout(None)
    return end.outgoing.position


def test_a_slow_reader_gets_every_byte(own_cgroups: Cgroups, relayed: Sockops) -> None:
    settings = {"relays": [RELAY], "receive_memory_limit": 1 << 16}
    present(relayed, [own_cgroups.server.relative_path], **settings)
    with servers(own_cgroups) as ends, ends.pair() as pair, ThreadPoolExecutor(1) as threads:
        pair.to_client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        writing = threads.submit(send_in_pieces, pair.clients.client, 20_000_000, READ_BYTES)
        pair.clients.server.receive(20_000_000)
        writing.result(60)
