"""The load generator finds what it is there to find: each damage is done to it by a server here."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support import mesh_load
from tests.support.mesh_load import Client, parse_mixed, parse_requests, parse_stream, server_command
from tests.support.processes import ManagedProcess, ProcessError, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.mesh_load import ClientMode

LOOPBACK = "127.0.0.1"
Damage = Callable[[bytes], bytes]


@pytest.fixture(scope="module", autouse=True)
def _program() -> None:
    mesh_load.build([str(mesh_load.PROGRAM)])


@pytest.fixture
def port() -> int:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as listener:
        return int(listener.getsockname()[1])


def intact(data: bytes) -> bytes:
    return data


def lost(data: bytes) -> bytes:
    return data[:100] + data[101:]


def doubled(data: bytes) -> bytes:
    return data[:100] + data[99:]


def swapped(data: bytes) -> bytes:
    return data[:100] + data[108:116] + data[100:108] + data[116:]


def stale(data: bytes) -> bytes:
    """Bytes that were right eight positions earlier."""
    return data[:100] + data[92:-8]


@contextlib.contextmanager
def damaging_echo(damage: Damage) -> Iterator[int]:
    """Echo one connection's bytes, the first KB of them damaged; yields the port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=_echo_once, args=(listener, damage))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def _echo_once(listener: socket.socket, damage: Damage) -> None:
    connection, _ = listener.accept()
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(damage(connection.recv(1024, socket.MSG_WAITALL)))
        while data := connection.recv(65536):
            connection.sendall(data)


def exchange(port: int, mode: ClientMode = "pingpong") -> str:
    client = Client(mode, size=1024, duration=0.1, verify=True, patience=0.3)
    return run(client.command(LOOPBACK, port), timeout=client.time_limit)


def test_intact_echo_passes() -> None:
    with damaging_echo(intact) as port:
        assert parse_requests(exchange(port)).requests > 0


@pytest.mark.parametrize("damage", [lost, swapped, stale])
def test_wrong_bytes_are_found(damage: Damage) -> None:
    """Found at byte 100, or a little later when the wrong byte there happens to be the same."""
    with damaging_echo(damage) as port, pytest.raises(ProcessError, match=r"byte 10\d of the replies"):
        exchange(port)


def test_byte_too_many_is_found() -> None:
    with damaging_echo(doubled) as port, pytest.raises(ProcessError, match="1 bytes more"):
        exchange(port)


def test_lost_end_is_found_as_a_stall() -> None:
    with (
        damaging_echo(lambda data: data[:-1]) as port,
        pytest.raises(ProcessError, match="1 of 1 connections got no reply"),
    ):
        exchange(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_every_address_family_and_whole_messages(address: str, port: int) -> None:
    with ManagedProcess(server_command("echo", port)) as server:
        server.wait_for_port(port)
        client = Client("pingpong", size=300_000, connections=3, duration=0.2, verify=True, threads=2)
        requests = parse_requests(run(client.command(address, port)))

        assert requests.requests == requests.latencies.count > 0


def test_short_connections_each_carry_a_request(port: int) -> None:
    with ManagedProcess(server_command("echo", port)) as server:
        server.wait_for_port(port)
        client = Client("connect", connections=4, duration=0.2, verify=True)

        assert parse_requests(run(client.command(LOOPBACK, port))).requests > 0


def test_sink_answers_for_every_byte_of_a_stream(port: int) -> None:
    with ManagedProcess(server_command("sink", port, verify=True)) as server:
        server.wait_for_port(port)
        client = Client("stream", size=777, connections=2, duration=0.2, verify=True)

        assert parse_stream(run(client.command(LOOPBACK, port))).bytes > 0


def test_sink_refuses_a_stream_with_a_wrong_byte(port: int) -> None:
    with ManagedProcess(server_command("sink", port, verify=True)) as server:
        server.wait_for_port(port)
        client = Client("stream", size=4096, duration=0.2, verify=False)

        with pytest.raises(ProcessError, match=r"reset|Broken pipe|gave up"):
            run(client.command(LOOPBACK, port))
        assert "a wrong byte" in server.error_path.read_text(encoding="utf-8")


def test_requests_of_any_length_are_counted_to_the_last_reply(port: int) -> None:
    """Large messages on many connections: hardly any reply comes within the duration itself."""
    with ManagedProcess(server_command("echo", port)) as server:
        server.wait_for_port(port)
        client = Client("pingpong", size=2**20, connections=16, duration=0.005, verify=True)
        result = parse_requests(run(client.command(LOOPBACK, port)))

    assert result.requests >= client.connections
    assert result.seconds >= result.latencies.maximum


@pytest.mark.parametrize(
    ("size", "requests", "burst"),
    [(24, 3, 1), (64, 200, 50_000), (1000, 1, 2_000_001), (2**20, 2, 3 * 2**20)],
)
def test_mixed_phases_alternate_with_every_byte_checked(
    port: int, size: int, requests: int, burst: int
) -> None:
    with ManagedProcess(server_command("mixed-server", port, verify=True)) as server:
        server.wait_for_port(port)
        client = Client("mixed", size, 3, duration=0.2, verify=True, requests=requests, burst=burst)
        result = parse_mixed(run(client.command(LOOPBACK, port)))

    from_bursts = result.bytes - 2 * size * result.requests.requests
    assert from_bursts > 0
    assert from_bursts % burst == 0
    assert 0 <= result.requests.requests - requests * (from_bursts // burst) <= client.connections * requests


@pytest.mark.parametrize("damage", [lost, swapped, stale])
def test_wrong_bytes_of_a_mixed_reply_are_found(damage: Damage) -> None:
    with (
        damaging_echo(damage) as port,
        pytest.raises(ProcessError, match="byte 100 of the replies in a cycle is wrong"),
    ):
        exchange(port, "mixed")


def test_wrong_head_of_a_cycle_is_found() -> None:
    with (
        damaging_echo(lambda data: data[:5] + b"?" + data[6:]) as port,
        pytest.raises(ProcessError, match="the head of a cycle came back changed"),
    ):
        exchange(port, "mixed")


def test_burst_that_comes_back_is_found() -> None:
    with damaging_echo(intact) as port, pytest.raises(ProcessError, match="a burst"):
        exchange(port, "mixed")


def test_mixed_server_refuses_a_burst_with_a_wrong_byte(port: int) -> None:
    with ManagedProcess(server_command("mixed-server", port, verify=True)) as server:
        server.wait_for_port(port)
        client = Client("mixed", size=64, duration=0.2, requests=2, burst=1000)

        with pytest.raises(ProcessError, match=r"reset|Broken pipe|gave up"):
            run(client.command(LOOPBACK, port))
        assert "a wrong byte after byte 128" in server.error_path.read_text(encoding="utf-8")


def test_mixed_server_refuses_bytes_beyond_a_burst(port: int) -> None:
    header = struct.pack("!QQQ", 24, 8, 0)
    with ManagedProcess(server_command("mixed-server", port)) as server:
        server.wait_for_port(port)
        with socket.create_connection((LOOPBACK, port)) as connection:
            connection.sendall(header)
            assert connection.recv(24, socket.MSG_WAITALL) == header
            connection.sendall(bytes(8))
            assert connection.recv(8, socket.MSG_WAITALL) == struct.pack("!Q", 8)
            connection.sendall(header)
            assert connection.recv(24, socket.MSG_WAITALL) == header
            connection.sendall(bytes(9))
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(8) == b""


def test_the_phases_are_in_the_help() -> None:
    text = run([str(mesh_load.PROGRAM), "--help"])

    assert "--requests" in text
    assert "--burst bytes one way" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sprint"], "unknown mode: sprint"),
        (["echo", "--address", "::"], "missing: --port"),
        (["echo", "--address", "::", "--port", "65536"], "out of range: 65536"),
        (["pingpong", "--address", "::1", "--port", "9", "--threads", "2"], "more threads"),
        (["connect", "--address", "::1", "--port", "9", "--bytes", "1"], "only for stream"),
        (["echo", "--address", "localhost", "--port", "9"], "localhost is no numeric address"),
        (["stream", "--address", "::1", "--port", "9", "--size", "-1"], "not a whole number"),
        (["stream", "--address", "::1", "--port", "9", "--burst", "1"], "only for mixed"),
        (["pingpong", "--address", "::1", "--port", "9", "--requests", "1"], "only for mixed"),
        (["mixed", "--address", "::1", "--port", "9", "--size", "23"], "too small for mixed"),
    ],
)
def test_wrong_usage_is_named(words: list[str], complaint: str) -> None:
    with pytest.raises(ProcessError, match=complaint):
        run([str(mesh_load.PROGRAM), *words])
