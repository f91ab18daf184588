"""nginx: files, uploads and proxied answers arrive as they do without sockops."""

from __future__ import annotations

import contextlib
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.observation import Counted
from tests.peers.addresses import ADDRESS
from tests.peers.arms import STREAM_SHARE, assert_accelerated, assert_same, compare
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, body, expected
from tests.peers.curl import at
from tests.peers.differences import accepted, differing
from tests.peers.documents import Documents
from tests.peers.http_client import Client
from tests.peers.nginx import FILE_PORTS, PROXY_PORTS, TLS_PORT, Servers, accelerated_servers
from tests.support.processes import ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTHS = (0, 1, 1023, KIBIBYTE, 16 * KIBIBYTE, 65_537, MEBIBYTE)
LARGE = 64 * MEBIBYTE
SLOW = 8 * MEBIBYTE
LARGE_PROXIED = 16 * MEBIBYTE
SECONDS = 20.0
GIVE_UP = ("--max-time", "4")
ANSWER_HEAD = re.compile(rb"HTTP/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)+\r\n")

SENDFILE = pytest.mark.parametrize("sendfile", FILE_PORTS)
BUFFERING = pytest.mark.parametrize("buffering", PROXY_PORTS)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers for the tests of this file, with a file of each length, named after it."""
    lengths = (*LENGTHS, SLOW, LARGE_PROXIED, LARGE)
    documents = Documents.make(tmp_path_factory.mktemp("documents"), lengths)
    with accelerated_servers(tmp_path_factory.mktemp("nginx"), documents) as running:
        yield running


@SENDFILE
def test_files_arrive_whole(servers: Servers, sendfile: str) -> None:
    names = [str(length) for length in LENGTHS]
    outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(at(FILE_PORTS[sendfile]), names))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, sum(LENGTHS))


@SENDFILE
def test_a_large_file_arrives_whole(servers: Servers, sendfile: str) -> None:
    outcome = assert_same(
        servers.pod.node, lambda: servers.curl.fetch(at(FILE_PORTS[sendfile]), [str(LARGE)])
    )
    assert outcome.result == [expected(LARGE)]
    assert_accelerated(outcome, LARGE, STREAM_SHARE)


@SENDFILE
def test_a_slow_reader_gets_all(servers: Servers, sendfile: str) -> None:
    rate = ("--limit-rate", str(6 * MEBIBYTE))
    outcome = assert_same(
        servers.pod.node, lambda: servers.curl.fetch(at(FILE_PORTS[sendfile]), [str(SLOW)], *rate)
    )
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

    outcome = assert_same(servers.pod.node, pipeline)
    assert outcome.result == b"".join(body(length) for length in lengths)
    assert_accelerated(outcome, sum(lengths))


@BUFFERING
def test_proxied_files_arrive_whole(servers: Servers, buffering: str) -> None:
    names = [str(length) for length in LENGTHS]
    outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(at(PROXY_PORTS[buffering]), names))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, 2 * sum(LENGTHS))


@BUFFERING
def test_a_large_proxied_file_arrives_whole(servers: Servers, buffering: str) -> None:
    """nginx as a reader needs a memory limit above the length of a body: see Limits in docs/sockops.md."""
    server, name = at(PROXY_PORTS[buffering]), str(LARGE_PROXIED)
    with servers.pod.changed(receive_memory_limit=2 * LARGE_PROXIED):
        outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(server, [name]))
    assert outcome.result == [expected(LARGE_PROXIED)]
    assert_accelerated(outcome, 2 * LARGE_PROXIED, STREAM_SHARE)


@BUFFERING
def test_proxied_uploads_arrive_whole(servers: Servers, buffering: str) -> None:
    def upload_all() -> list[Received]:
        servers.curl.upload(
            at(PROXY_PORTS[buffering]), [servers.documents.path(length) for length in LENGTHS]
        )
        return [servers.documents.take_upload(str(length)) for length in LENGTHS]

    outcome = assert_same(servers.pod.node, upload_all)
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, 2 * sum(LENGTHS))


def test_only_known_transfers_above_the_memory_limit_differ(servers: Servers) -> None:
    """Whether nginx falls so far behind its writer is the scheduler's to say, so none has to differ."""
    places = {
        "files": at(FILE_PORTS["on"]),
        "proxy": at(PROXY_PORTS["on"]),
        "TLS": at(TLS_PORT, "https"),
    }

    def transfer_all() -> dict[str, str]:
        return {
            f"{transfer.__name__} {name}": how_it_went(servers, transfer, server)
            for transfer in (download, upload)
            for name, server in places.items()
        }

    off, on = compare(servers.pod.node, transfer_all)
    assert set(off.result.values()) == {"whole"}
    assert set(on.result.values()) <= {"whole", "failed"}
    assert differing(off.result, on.result).keys() <= accepted("nginx").keys()
    assert_accelerated(on, LARGE_PROXIED, STREAM_SHARE)


def how_it_went(servers: Servers, transfer: Callable[[Servers, str], Received], server: str) -> str:
    """Transfer one large body; tell whether it arrived."""
    try:
        received = transfer(servers, server)
    except ProcessError:
        return "failed"
    return "whole" if received == expected(LARGE_PROXIED) else "damaged"


def download(servers: Servers, server: str) -> Received:
    """Fetch the large body."""
    (received,) = servers.curl.fetch(server, [str(LARGE_PROXIED)], *GIVE_UP)
    return received


def upload(servers: Servers, server: str) -> Received:
    """Store the large body."""
    servers.curl.upload(server, [servers.documents.path(LARGE_PROXIED)], *GIVE_UP)
    return servers.documents.take_upload(str(LARGE_PROXIED))


@BUFFERING
def test_connections_opened_before_a_switch_off_go_on(servers: Servers, buffering: str) -> None:
    """nginx asks how much waits unread (FIONREAD); of a tracked socket the kernel leaves out TCP's part."""
    with contextlib.closing(Client(servers.client, ADDRESS, PROXY_PORTS[buffering])) as client:
        servers.pod.node.switch(Mode.ON)
        counted = Counted(servers.pod.node)
        upload_and_fetch(client)
        assert counted["redirected_bytes"] > 0
        opened = client.sock
        servers.pod.node.switch(Mode.OFF)
        servers.pod.node.release()
        counted = Counted(servers.pod.node)
        upload_and_fetch(client)
        assert client.sock is opened
        assert counted.all() == {}
    assert servers.documents.take_upload("kept") == expected(LENGTHS[-1])


def upload_and_fetch(client: Client) -> None:
    """Upload bodies of each length under one name; each has to be what is fetched afterwards."""
    for length in LENGTHS:
        assert client.put("/uploads/kept", body(length)).status in (HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)
        assert client.get("/uploads/kept").body == expected(length)
