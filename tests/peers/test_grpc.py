"""gRPC: calls, streams, cancellations and deadlines end as they do without sockops."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers import grpc_client
from tests.peers.arms import STREAM_SHARE, Outcome, assert_accelerated, assert_same
from tests.peers.bodies import MEBIBYTE, Received, body, expected
from tests.peers.pod import Pod, accelerated_pod
from tests.support.processes import ManagedProcess, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
PORT = 50051
STREAMED = tuple(grpc_client.streamed())


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    """The place of the server and its client, which begin and end with each scenario."""
    with accelerated_pod("grpc", "client", "server") as made:
        yield made


def go_through(pod: Pod, scenario: str) -> Outcome[object]:
    """Run a scenario of the client against a server of its own, off and on."""

    def once() -> object:
        command = [sys.executable, "-m", "tests.peers.grpc_server", str(PORT)]
        with ManagedProcess(command, pod.place("server"), environment=ENVIRONMENT) as server:
            server.wait_for_port(PORT)
            words = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.peers.grpc_client"]
            return json.loads(run([*words, str(PORT), scenario], pod.place("client")))

    return assert_same(pod.node, once)


def told(lengths: Iterable[int]) -> list[dict[str, object]]:
    """Return undamaged messages of these lengths, as the client tells them."""
    return [asdict(expected(length)) for length in lengths]


@pytest.mark.parametrize(
    ("scenario", "lengths"),
    [
        ("unary", grpc_client.LENGTHS),
        ("big", [grpc_client.BIG]),
        ("bidirectional", STREAMED),
        ("dialogue", STREAMED),
        ("many_calls", grpc_client.LENGTHS * grpc_client.THREADS),
    ],
)
def test_messages_come_back_whole(pod: Pod, scenario: str, lengths: list[int]) -> None:
    outcome = go_through(pod, scenario)
    assert outcome.result == told(lengths)
    assert_accelerated(outcome, 2 * sum(lengths), STREAM_SHARE)


@pytest.mark.parametrize(
    ("scenario", "lengths"),
    [
        ("server_stream", [MEBIBYTE // 10] * grpc_client.STREAMED),
        ("slow_reader", [MEBIBYTE] * 40),
    ],
)
def test_streams_from_the_server_arrive_whole(pod: Pod, scenario: str, lengths: list[int]) -> None:
    outcome = go_through(pod, scenario)
    assert outcome.result == told(lengths)
    assert_accelerated(outcome, sum(lengths), STREAM_SHARE)


def test_a_stream_to_the_server_arrives_whole(pod: Pod) -> None:
    outcome = go_through(pod, "client_stream")
    assert outcome.result == asdict(Received.of(b"".join(map(body, STREAMED))))
    assert_accelerated(outcome, sum(STREAMED), STREAM_SHARE)


def test_a_cancelled_stream_ends_at_both_ends(pod: Pod) -> None:
    outcome = go_through(pod, "cancellation")
    assert outcome.result == [told([MEBIBYTE] * 10), "CANCELLED", "1", told(grpc_client.LENGTHS)]
    assert_accelerated(outcome, 10 * MEBIBYTE)


def test_calls_that_run_out_of_time_end_at_both_ends(pod: Pod) -> None:
    outcome = go_through(pod, "deadline")
    assert outcome.result == [["DEADLINE_EXCEEDED"] * 3, "3", told(grpc_client.LENGTHS)]
    assert_accelerated(outcome, 2 * sum(grpc_client.LENGTHS))
