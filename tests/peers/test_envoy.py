"""Envoy: what crosses the two sidecars of a mesh arrives as it does without sockops."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from meshaccel.model import Mode
from tests.kernel.observation import Counted, wait_until
from tests.peers.arms import assert_accelerated
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, body, expected
from tests.peers.http_client import Answer, Client, pieces
from tests.peers.origin import told
from tests.peers.sidecars import HOPS, Sidecars, accelerated_sidecars
from tests.support import mesh_load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LENGTHS = (0, 1, 1023, KIBIBYTE, 16 * KIBIBYTE, 65_537, MEBIBYTE, 4 * MEBIBYTE)
CONNECTIONS = 64
SECONDS = 30.0
SWITCH_SECONDS = 0.05


@pytest.fixture(scope="module")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecars]:
    """One accelerated mesh for the tests of this file."""
    with accelerated_sidecars(tmp_path_factory.mktemp("mesh")) as running:
        yield running


def fetch_all(client: Client, way: str, *, keep_alive: bool) -> list[Answer]:
    """Fetch every length, over one connection or each over its own."""
    answers = []
    for length in LENGTHS:
        answers.append(client.get(f"/{way}/{length}"))
        if not keep_alive:
            client.close()
    client.close()
    return answers


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "new-connections"])
@pytest.mark.parametrize("way", ["length", "chunked", "until-end"])
def test_answers_arrive_whole(sidecars: Sidecars, way: str, keep_alive: bool) -> None:
    outcome = sidecars.assert_same(lambda: fetch_all(sidecars.http(), way, keep_alive=keep_alive))
    answers, counts = outcome.result
    assert answers == [Answer(200, expected(length)) for length in LENGTHS]
    assert counts.failures == {}
    assert_accelerated(outcome, HOPS * sum(LENGTHS))


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_uploads_arrive_whole(sidecars: Sidecars, chunked: bool) -> None:
    def upload_all() -> list[Answer]:
        with contextlib.closing(sidecars.http()) as client:
            contents = (body(length) for length in LENGTHS)
            return [client.post("/", pieces(content) if chunked else content) for content in contents]

    outcome = sidecars.assert_same(upload_all)
    answers, counts = outcome.result
    assert answers == [Answer(200, Received.of(told(expected(length)))) for length in LENGTHS]
    assert counts.failures == {}
    assert_accelerated(outcome, HOPS * sum(LENGTHS))


def test_a_server_that_closes_without_an_answer(sidecars: Sidecars) -> None:
    def ask() -> int:
        with contextlib.closing(sidecars.http()) as client:
            return client.get("/silence/0").status

    status, counts = sidecars.assert_same(ask).result
    assert status == 503
    assert counts.answers["client http.outbound_http.downstream_rq_5xx"] == 1


def test_a_server_that_closes_in_its_answer(sidecars: Sidecars) -> None:
    """What it did send arrives, all of it: the end of the connection overtakes nothing."""
    lengths = (1023, 65_537, 4 * MEBIBYTE)

    paths = [[f"/cut/{length}"] for length in lengths]
    outcome = sidecars.assert_same(lambda: fetch_at_once(sidecars, paths))
    answers, counts = outcome.result
    halves = [body(length)[: length // 2] for length in lengths]
    assert answers == [[Answer(200, Received.of(half), complete=False)] for half in halves]
    assert counts.failures["server cluster.application_http.upstream_cx_protocol_error"] == len(lengths)
    assert_accelerated(outcome, HOPS * sum(lengths) // 2)


def test_http_over_64_connections(sidecars: Sidecars) -> None:
    lengths = (KIBIBYTE, 65_537)
    paths = [[f"/length/{length}" for length in lengths]] * CONNECTIONS
    outcome = sidecars.assert_same(lambda: fetch_at_once(sidecars, paths))
    answers, counts = outcome.result
    assert answers == [[Answer(200, expected(length)) for length in lengths]] * CONNECTIONS
    assert counts.failures == {}
    assert_accelerated(outcome, HOPS * CONNECTIONS * sum(lengths))


def fetch_at_once(sidecars: Sidecars, paths: Sequence[Sequence[str]]) -> list[list[Answer]]:
    """Fetch lists of paths, each list over its own connection, all at the same time."""
    clients = [sidecars.http() for _ in paths]
    for client in clients:
        client.connect()
    with ThreadPoolExecutor(len(clients)) as threads:
        return list(threads.map(fetch_in_turn, clients, paths, timeout=SECONDS))


def fetch_in_turn(client: Client, paths: Sequence[str]) -> list[Answer]:
    """Fetch paths over one connection and close it."""
    with contextlib.closing(client):
        return [client.get(path) for path in paths]


@pytest.mark.parametrize(
    ("mode", "size"),
    [("pingpong", 1), ("pingpong", KIBIBYTE), ("pingpong", 64 * KIBIBYTE), ("connect", KIBIBYTE)],
)
def test_tcp_over_64_connections(sidecars: Sidecars, mode: mesh_load.ClientMode, size: int) -> None:
    """Off and on differ in the number of requests; that every byte is right is the load's to say."""
    load = mesh_load.Client(mode, size, CONNECTIONS, duration=1, verify=True)
    outcome = sidecars.assert_same(lambda: sidecars.load_echo(load) >= CONNECTIONS)
    each_was_served, counts = outcome.result
    assert each_was_served
    assert counts.failures == {}
    assert_accelerated(outcome, 2 * HOPS * CONNECTIONS * size)


def test_switching_under_load_disturbs_no_connection(sidecars: Sidecars) -> None:
    load = mesh_load.Client("pingpong", KIBIBYTE, CONNECTIONS, duration=2, verify=True)
    sidecars.node.switch(Mode.ON)
    counted = Counted(sidecars.node)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(sidecars.load_echo, load)
        wait_until(lambda: counted["redirected_bytes"] > 0, "the load")
        for mode in itertools.islice(itertools.cycle([Mode.OFF, Mode.ON, Mode.DRAIN, Mode.ON]), 20):
            sidecars.node.switch(mode)
            time.sleep(SWITCH_SECONDS)
        assert running.result(SECONDS) > CONNECTIONS
    assert counted["redirected_messages"] > 0
    assert counted["tcp_messages_mode"] > 0


def test_tcp_streams_both_ways_that_end_one_way_first(sidecars: Sidecars) -> None:
    lengths = [KIBIBYTE, MEBIBYTE, 4 * MEBIBYTE] * 4

    def echo_at_once() -> list[Received]:
        connections = [sidecars.connect_echo() for _ in lengths]
        with ThreadPoolExecutor(len(lengths)) as threads:
            return list(threads.map(echoed, connections, map(body, lengths), timeout=SECONDS))

    outcome = sidecars.assert_same(echo_at_once)
    received, counts = outcome.result
    assert received == [expected(length) for length in lengths]
    assert counts.failures == {}
    assert_accelerated(outcome, 2 * HOPS * sum(lengths))


def echoed(connection: socket.socket, content: bytes) -> Received:
    """Send a payload and the end of the stream, meanwhile read what comes back to its end."""

    def send() -> None:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)

    connection.settimeout(SECONDS)
    with connection, ThreadPoolExecutor(1) as sender, connection.makefile("rb") as answer:
        sent = sender.submit(send)
        received = Received.of(answer.read())
        sent.result(SECONDS)
    return received
