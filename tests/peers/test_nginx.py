"""nginx: files, uploads and proxied answers arrive as they do without sockops."""

from __future__ import annotations

import contextlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.observation import Counted
from tests.peers.arms import assert_accelerated, assert_same
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, body, expected
from tests.peers.http_client import Client
from tests.peers.nginx import ADDRESS, FILE_PORTS, PROXY_PORTS, Servers, accelerated_servers, told

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTHS = (0, 1, 1023, KIBIBYTE, 16 * KIBIBYTE, 65_537, MEBIBYTE)
LARGE = 64 * MEBIBYTE
SLOW = 8 * MEBIBYTE
LARGE_PROXIED = 16 * MEBIBYTE
SECONDS = 20.0
ANSWER_HEAD = re.compile(rb"HTTP/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)+\r\n")

SENDFILE = pytest.mark.parametrize("sendfile", FILE_PORTS)
BUFFERING = pytest.mark.parametrize("buffering", PROXY_PORTS)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers for the tests of this file, with a file of each length, named after it."""
    documents = tmp_path_factory.mktemp("documents")
    (documents / "uploads").mkdir()
    for length in (*LENGTHS, SLOW, LARGE_PROXIED, LARGE):
        (documents / str(length)).write_bytes(body(length))
    with accelerated_servers(tmp_path_factory.mktemp("nginx"), documents) as running:
        yield running


@SENDFILE
def test_files_arrive_whole(servers: Servers, sendfile: str) -> None:
    names = [str(length) for length in LENGTHS]
    outcome = assert_same(servers.node, lambda: servers.fetch(FILE_PORTS[sendfile], names))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, sum(LENGTHS))


@SENDFILE
def test_a_large_file_arrives_whole(servers: Servers, sendfile: str) -> None:
    outcome = assert_same(servers.node, lambda: servers.fetch(FILE_PORTS[sendfile], [str(LARGE)]))
    assert outcome.result == [expected(LARGE)]
    # nginx fills the socket to its memory limit; from then on curl is behind, and TCP's window rules.
    assert_accelerated(outcome, LARGE, share=0.05)


@SENDFILE
def test_a_slow_reader_gets_all(servers: Servers, sendfile: str) -> None:
    rate = ("--limit-rate", str(6 * MEBIBYTE))
    outcome = assert_same(servers.node, lambda: servers.fetch(FILE_PORTS[sendfile], [str(SLOW)], *rate))
    assert outcome.result == [expected(SLOW)]
    assert outcome.counted["tcp_messages_memory"] > 0
    assert_accelerated(outcome, SLOW, share=0.4)


@SENDFILE
def test_pipelined_requests_are_answered_in_order(servers: Servers, sendfile: str) -> None:
    lengths = [length for _ in range(20) for length in LENGTHS[1:6]]

    def pipeline() -> bytes:
        requests = [f"GET /{length} HTTP/1.1\r\nHost: nginx\r\n\r\n" for length in lengths]
        requests.append("GET /0 HTTP/1.1\r\nHost: nginx\r\nConnection: close\r\n\r\n")
        with servers.client.connect(ADDRESS, FILE_PORTS[sendfile]) as connection:
            connection.settimeout(SECONDS)
            connection.sendall("".join(requests).encode())
            with connection.makefile("rb") as answers:
                return ANSWER_HEAD.sub(b"", answers.read())

    outcome = assert_same(servers.node, pipeline)
    assert outcome.result == b"".join(body(length) for length in lengths)
    assert_accelerated(outcome, sum(lengths))


@BUFFERING
def test_proxied_files_arrive_whole(servers: Servers, buffering: str) -> None:
    names = [str(length) for length in LENGTHS]
    outcome = assert_same(servers.node, lambda: servers.fetch(PROXY_PORTS[buffering], names))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, 2 * sum(LENGTHS))


@BUFFERING
def test_a_large_proxied_file_arrives_whole(servers: Servers, buffering: str) -> None:
    """nginx as a reader needs a memory limit above the length of a body: see Limits in docs/sockops.md."""
    name = str(LARGE_PROXIED)
    with servers.receive_memory_limit(2 * LARGE_PROXIED):
        outcome = assert_same(servers.node, lambda: servers.fetch(PROXY_PORTS[buffering], [name]))
    assert outcome.result == [expected(LARGE_PROXIED)]
    assert_accelerated(outcome, 2 * LARGE_PROXIED, share=0.99)


@BUFFERING
def test_proxied_uploads_arrive_whole(servers: Servers, buffering: str) -> None:
    def upload_all() -> list[Received]:
        for length in LENGTHS:
            url = f"http://{ADDRESS}:{PROXY_PORTS[buffering]}/uploads/"
            servers.curl("--upload-file", str(servers.documents / str(length)), url)
        stored = [servers.documents / "uploads" / str(length) for length in LENGTHS]
        found = [told(path) for path in stored]
        for path in stored:
            path.unlink()
        return found

    outcome = assert_same(servers.node, upload_all)
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, 2 * sum(LENGTHS))


@BUFFERING
def test_connections_opened_before_a_switch_off_go_on(servers: Servers, buffering: str) -> None:
    """nginx asks how much waits unread (FIONREAD); of a tracked socket the kernel leaves out TCP's part."""
    with contextlib.closing(Client(servers.client, ADDRESS, PROXY_PORTS[buffering])) as client:
        servers.node.switch(Mode.ON)
        counted = Counted(servers.node)
        upload_and_fetch(client)
        assert counted["redirected_bytes"] > 0
        opened = client.sock
        servers.node.switch(Mode.OFF)
        servers.node.release()
        counted = Counted(servers.node)
        upload_and_fetch(client)
        assert client.sock is opened
        assert counted.all() == {}
    (servers.documents / "uploads" / "kept").unlink()


def upload_and_fetch(client: Client) -> None:
    """Upload bodies of each length under one name; each has to be what is fetched afterwards."""
    for length in LENGTHS:
        assert client.put("/uploads/kept", body(length)).status in (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)
        assert client.get("/uploads/kept").body == expected(length)
