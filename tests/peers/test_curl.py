"""curl: what it downloads and uploads, and over how many connections, is as it is without sockops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.arms import assert_accelerated, assert_same
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, body, expected
from tests.peers.curl import at
from tests.peers.documents import Documents
from tests.peers.nginx import FILE_PORTS, TLS_PORT, Servers, accelerated_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: One byte around each power of two, where buffers end.
LENGTHS = (0, 1, *(length for power in range(8, 21) for length in (2**power - 1, 2**power, 2**power + 1)))
SLOW = 3 * MEBIBYTE
RATE = ("--limit-rate", str(3 * MEBIBYTE))
PLAIN = at(FILE_PORTS["off"])
TLS = at(TLS_PORT, "https")
COUNT_CONNECTIONS = ("--write-out", "%{num_connects}\n")

PROTOCOL = pytest.mark.parametrize(
    ("server", "words"),
    [(PLAIN, ()), (TLS, ("--http1.1",)), (TLS, ("--http2",))],
    ids=["http", "https", "http2"],
)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers for the tests of this file, with a file of each length."""
    documents = Documents.make(tmp_path_factory.mktemp("documents"), (*LENGTHS, SLOW))
    with accelerated_servers(tmp_path_factory.mktemp("curl"), documents) as running:
        yield running


@PROTOCOL
def test_downloads_of_many_lengths_over_one_connection(
    servers: Servers, server: str, words: Sequence[str]
) -> None:
    names = [str(length) for length in LENGTHS]
    outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(server, names, *words))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, sum(LENGTHS))


@PROTOCOL
def test_uploads_of_many_lengths_over_one_connection(
    servers: Servers, server: str, words: Sequence[str]
) -> None:
    outcome = assert_same(servers.pod.node, lambda: upload(servers, LENGTHS, server, words))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, sum(LENGTHS))


def test_uploads_in_chunks(servers: Servers) -> None:
    """But for the empty one: curl 7.88 never sends the chunk that ends it."""
    lengths, words = LENGTHS[1:], ("--header", "Transfer-Encoding: chunked")
    outcome = assert_same(servers.pod.node, lambda: upload(servers, lengths, PLAIN, words))
    assert outcome.result == [expected(length) for length in lengths]
    assert_accelerated(outcome, sum(lengths))


@PROTOCOL
def test_uploads_wait_for_leave_to_continue(servers: Servers, server: str, words: Sequence[str]) -> None:
    """One waits for `100 Continue`, all go in one round of writes after it."""
    expect = ("--header", "Expect: 100-continue")
    outcome = assert_same(servers.pod.node, lambda: upload(servers, [MEBIBYTE], server, (*words, *expect)))
    assert outcome.result == [expected(MEBIBYTE)]
    assert_accelerated(outcome, MEBIBYTE)


def test_slow_downloads(servers: Servers) -> None:
    outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(PLAIN, [str(SLOW)], *RATE))
    assert outcome.result == [expected(SLOW)]
    assert_accelerated(outcome, SLOW)


def test_slow_uploads(servers: Servers) -> None:
    outcome = assert_same(servers.pod.node, lambda: upload(servers, [SLOW], PLAIN, RATE))
    assert outcome.result == [expected(SLOW)]
    assert_accelerated(outcome, SLOW)


def test_connections_are_kept_and_closed_alike(servers: Servers) -> None:
    """How many connections curl makes: a keep-alive that broke unseen would be one more."""

    def connections(*words: str) -> list[int]:
        urls = [f"{PLAIN}/{length}" for length in (0, 1, 65_537) * 5]
        outputs = [word for _ in urls for word in ("--output", "/dev/null")]
        return [int(line) for line in servers.curl(*COUNT_CONNECTIONS, *words, *outputs, *urls).split()]

    outcome = assert_same(
        servers.pod.node, lambda: (connections(), connections("--header", "Connection: close"))
    )
    kept, closed = outcome.result
    assert kept == [1] + [0] * 14
    assert closed == [1] * 15
    assert_accelerated(outcome, 10 * 65_537)


@PROTOCOL
def test_parallel_downloads(servers: Servers, server: str, words: Sequence[str]) -> None:
    names = [str(length) for length in LENGTHS]
    parallel = ("--parallel", "--parallel-immediate", "--parallel-max", "20", *words)
    outcome = assert_same(servers.pod.node, lambda: servers.curl.fetch(server, names, *parallel))
    assert outcome.result == [expected(length) for length in LENGTHS]
    assert_accelerated(outcome, sum(LENGTHS))


def test_ranges(servers: Servers) -> None:
    begins = (0, 1, KIBIBYTE, 65_537, MEBIBYTE - 1)

    def fetch_ranges() -> list[Received]:
        return [
            received
            for begin in begins
            for received in servers.curl.fetch(PLAIN, [str(MEBIBYTE)], "--range", f"{begin}-")
        ]

    outcome = assert_same(servers.pod.node, fetch_ranges)
    assert outcome.result == [Received.of(body(MEBIBYTE)[begin:]) for begin in begins]
    assert_accelerated(outcome, sum(MEBIBYTE - begin for begin in begins))


def upload(servers: Servers, lengths: Sequence[int], server: str, words: Sequence[str]) -> list[Received]:
    """Upload files of these lengths and tell what the server stored."""
    servers.curl.upload(server, [servers.documents.path(length) for length in lengths], *words)
    return [servers.documents.take_upload(str(length)) for length in lengths]
