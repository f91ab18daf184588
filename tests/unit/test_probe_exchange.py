"""The two ends of a probe's exchange and the processes they run in, over loopback and without root."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from meshaccel.probe import ProbeFailed, exchange
from meshaccel.probe.exchange import Conversation, Echo, Load
from meshaccel.probe.processes import worker
from meshaccel.probe.settings import payload
from meshaccel.system import tcp_information

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 20.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a TCP connection over loopback; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.setblocking(False)
        server.settimeout(SECONDS)
        yield client, server


def load_of(
    request: bytes,
    response: bytes,
    port: int = 1,
    *,
    connections: int = 1,
    messages: int = 1,
    seconds: float = SECONDS,
) -> Load:
    return Load("127.0.0.1", port, request, response, connections, messages, seconds)


def proceed_until_answered(talk: Conversation) -> float:
    deadline = time.monotonic() + SECONDS
    while (latency := talk.proceed()) is None:
        assert time.monotonic() < deadline
    return latency


class TestConversation:
    def test_times_a_response_that_comes_in_pieces(self, ends: tuple[socket.socket, socket.socket]) -> None:
        client, server = ends
        talk = Conversation(client, load_of(b"ping", b"pong"))
        talk.begin()

        assert server.recv(10) == b"ping"
        server.sendall(b"po")
        assert talk.proceed() is None
        server.sendall(b"ng")
        assert proceed_until_answered(talk) > 0
        assert talk.payload_bytes == 8

    def test_waits_to_write_what_the_socket_does_not_take_at_once(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        client, server = ends
        request = payload(1 << 24)
        talk = Conversation(client, load_of(request, b"."))
        talk.begin()
        assert talk.interest == exchange.READ_AND_WRITE
        received = bytearray()

        def serve() -> None:
            while len(received) < len(request):
                received.extend(server.recv(1 << 20))
            server.sendall(b".")

        thread = threading.Thread(target=serve)
        thread.start()
        proceed_until_answered(talk)
        thread.join()

        assert received == request
        assert talk.interest == exchange.READ

    @pytest.mark.parametrize(
        ("sent", "found"),
        [
            (b"wrong", "b'wrong' where b'right' was expected"),
            (b"right!", "b'right!' where b'right' was expected"),
        ],
    )
    def test_a_wrong_response_is_shown(
        self, ends: tuple[socket.socket, socket.socket], sent: bytes, found: str
    ) -> None:
        client, server = ends
        talk = Conversation(client, load_of(b"ping", b"right"))
        talk.begin()
        server.sendall(sent)

        with pytest.raises(ProbeFailed) as caught:
            proceed_until_answered(talk)
        assert caught.value.found == found
        assert "127.0.0.1 port 1" in caught.value.wanted

    def test_a_stream_that_ends_early_says_how_far_it_came(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        client, server = ends
        talk = Conversation(client, load_of(b"ping", b"right"))
        talk.begin()
        server.sendall(b"ri")
        server.shutdown(socket.SHUT_WR)

        with pytest.raises(ProbeFailed, match="the end of the stream after 2 of 5 bytes"):
            proceed_until_answered(talk)


class TestEcho:
    def test_gives_back_what_it_gets_and_notices_the_end(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        echoing, client = ends
        echo = Echo(echoing)
        client.sendall(b"ping")

        assert echo.proceed()
        assert client.recv(10) == b"ping"
        client.shutdown(socket.SHUT_WR)
        assert not echo.proceed()

    def test_keeps_what_a_reader_is_too_slow_for(self, ends: tuple[socket.socket, socket.socket]) -> None:
        echoing, client = ends
        # Otherwise the kernel's own buffers may take all of it.
        echoing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        echo = Echo(echoing)
        sent = payload(1 << 23)
        feeder = threading.Thread(target=client.sendall, args=(sent,))
        feeder.start()
        while feeder.is_alive():
            assert echo.proceed()
        assert echo.interest == exchange.READ_AND_WRITE

        received = bytearray()
        while len(received) < len(sent):
            echo.proceed()
            with contextlib.suppress(BlockingIOError):
                received += client.recv(1 << 20, socket.MSG_DONTWAIT)
        assert received == sent

    def test_a_reset_ends_the_connection_and_not_the_server(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        echoing, client = ends
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()

        assert not Echo(echoing).proceed()


class TestMeasuring:
    def test_an_endpoint_over_several_connections(self) -> None:
        with worker("a server", None, serve_echo) as server:
            load = load_of(b"ping", b"ping", server.receive(int, SECONDS), connections=5, messages=23)
            run = exchange.ask(load)

        assert len(run.latencies) == 23
        assert run.payload_bytes == run.tcp_bytes == 23 * 8

    def test_fewer_messages_than_connections(self) -> None:
        with worker("a server", None, serve_echo) as server:
            run = exchange.ask(
                load_of(b"ping", b"ping", server.receive(int, SECONDS), connections=5, messages=2)
            )

        assert len(run.latencies) == 2

    def test_messages_of_several_megabytes_both_ways_at_once_do_not_lock_up(self) -> None:
        message = payload(3_000_000)
        with worker("a server", None, serve_echo) as server:
            run = exchange.ask(
                load_of(message, message, server.receive(int, SECONDS), connections=4, messages=8)
            )

        assert run.payload_bytes == 8 * 2 * len(message)

    def test_an_endpoint_that_never_answers_fails_after_its_time(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(ProbeFailed, match=r"within 0\.2 s; found none that was complete"),
        ):
            exchange.ask(load_of(b"ping", b"ping", listener.getsockname()[1], seconds=0.2))

    def test_time_that_is_up_after_some_answers_is_a_result(self) -> None:
        with worker("a server", None, serve_echo) as server:
            load = load_of(b"p", b"p", server.receive(int, SECONDS), messages=10_000_000, seconds=0.3)
            run = exchange.ask(load)

        assert 0 < len(run.latencies) < load.messages

    def test_tcp_information_counts_what_is_not_yet_sent(
        self, ends: tuple[socket.socket, socket.socket]
    ) -> None:
        client, _ = ends
        written = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                written += client.send(payload(1 << 20))

        assert tcp_information.read(client).sent_bytes == written


def serve_echo(send: Callable[[object], None]) -> None:
    with exchange.listen() as listener:
        send(listener.getsockname()[1])
        exchange.serve(listener)


class TestWorkers:
    def test_gives_its_result_and_is_gone(self) -> None:
        with worker("a sum", None, lambda _: os.getpid()) as running:
            process_id = running.receive(int, SECONDS)

        assert process_id != os.getpid()
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)

    def test_an_error_comes_through_with_its_three_parts(self) -> None:
        def fail(_: object) -> None:
            raise ProbeFailed(wanted="a", found="b", remedy="c")

        with worker("a failure", None, fail) as running, pytest.raises(ProbeFailed) as caught:
            running.receive(int, SECONDS)

        assert (caught.value.wanted, caught.value.found, caught.value.remedy) == ("a", "b", "c")

    def test_a_silent_one_is_given_up_and_killed(self) -> None:
        def sleep(send: Callable[[object], None]) -> None:
            send(os.getpid())
            time.sleep(600)

        with worker("a sleeper", None, sleep) as running:
            process_id = running.receive(int, SECONDS)
            with pytest.raises(ProbeFailed, match=r"a sleeper; found nothing after 0\.1 s"):
                running.receive(int, 0.1)

        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)

    def test_one_that_is_killed_is_reported_with_the_signal(self) -> None:
        def die(_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with worker("a victim", None, die) as running, pytest.raises(ProbeFailed, match="exit code -9"):
            running.receive(int, SECONDS)

    def test_a_cgroup_that_cannot_be_entered_is_named(self, tmp_path: Path) -> None:
        place = str(tmp_path / "gone")
        with (
            worker("a client", place, lambda _: 1) as running,
            pytest.raises(ProbeFailed, match=rf"a process in the cgroup {place}; found .*No such file"),
        ):
            running.receive(int, SECONDS)
