"""A gRPC client that goes through one of its scenarios and writes what came of it as JSON.

Usage: python -m tests.peers.grpc_client PORT SCENARIO
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import grpc

from tests.peers.addresses import ADDRESS
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received, body
from tests.peers.grpc_server import ANY_LENGTH, SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Unary = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    ClientStream = grpc.StreamUnaryMultiCallable[bytes, bytes]
    ServerStream = grpc.UnaryStreamMultiCallable[bytes, bytes]
    BothStreams = grpc.StreamStreamMultiCallable[bytes, bytes]
    Scenario = Callable[["Client"], object]

SECONDS = 20.0
DEADLINE_SECONDS = 0.3
LENGTHS = (0, 1, 100, 1023, 4097, 16 * KIBIBYTE, 65_537, 300_000, MEBIBYTE)
BIG = 24 * MEBIBYTE
STREAMED = 200
THREADS = 16
CONNECTIONS = 8


class Client:
    """One connection, and the methods of the service over it."""

    def __init__(self, port: int) -> None:
        """Prepare; the connection is made on the first call."""
        self.port = port
        # Without a pool of its own, channels to one server share one connection.
        options = (*ANY_LENGTH, ("grpc.use_local_subchannel_pool", 1))
        channel = grpc.insecure_channel(f"{ADDRESS}:{port}", options)
        self.channel = channel
        self.unary: Unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.collect: ClientStream = channel.stream_unary(f"/{SERVICE}/Collect")
        self.generate: ServerStream = channel.unary_stream(f"/{SERVICE}/Generate")
        self.echo: BothStreams = channel.stream_stream(f"/{SERVICE}/Echo")
        self.wait: Unary = channel.unary_unary(f"/{SERVICE}/Wait")
        self.ended: Unary = channel.unary_unary(f"/{SERVICE}/Ended")


def unary(client: Client) -> object:
    """Messages of many lengths, one at a time."""
    return told(client.unary(body(length), timeout=SECONDS) for length in LENGTHS)


def big(client: Client) -> object:
    """One message of many megabytes each way."""
    return told([client.unary(body(BIG), timeout=SECONDS)])


def client_stream(client: Client) -> object:
    """A stream to the server."""
    return json.loads(client.collect((body(length) for length in streamed()), timeout=SECONDS))


def server_stream(client: Client) -> object:
    """A stream from the server."""
    return told(client.generate(f"{STREAMED} {MEBIBYTE // 10}".encode(), timeout=SECONDS))


def slow_reader(client: Client) -> object:
    """A stream from the server that is read more slowly than it is written."""
    answers = []
    for answer in client.generate(f"40 {MEBIBYTE}".encode(), timeout=SECONDS):
        answers.append(Received.of(answer))
        time.sleep(0.02)
    return [asdict(answer) for answer in answers]


def bidirectional(client: Client) -> object:
    """Streams both ways, neither waiting for the other."""
    return told(client.echo((body(length) for length in streamed()), timeout=SECONDS))


def dialogue(client: Client) -> object:
    """Streams both ways, each message sent after the answer to the one before."""
    answered: queue.SimpleQueue[int] = queue.SimpleQueue()

    def requests() -> Iterator[bytes]:
        for length in streamed():
            yield body(length)
            answered.get(timeout=SECONDS)

    answers = []
    for answer in client.echo(requests(), timeout=SECONDS):
        answers.append(Received.of(answer))
        answered.put(len(answer))
    return [asdict(answer) for answer in answers]


def many_calls(client: Client) -> object:
    """Calls of many threads at once, over one connection and over several."""
    others = [Client(client.port) for _ in range(CONNECTIONS)]
    with ThreadPoolExecutor(THREADS) as threads, contextlib.ExitStack() as channels:
        for other in others:
            channels.enter_context(other.channel)
        callers = itertools.cycle([client, *others])
        work = [
            threads.submit(caller.unary, body(length), timeout=SECONDS)
            for caller, length in zip(callers, LENGTHS * THREADS, strict=False)
        ]
        return told(call.result(SECONDS) for call in work)


def cancellation(client: Client) -> object:
    """A stream given up in its middle: the server learns of it, other calls go on."""
    stream = client.generate(f"{10 * STREAMED} {MEBIBYTE}".encode(), timeout=SECONDS)
    first = told(itertools.islice(stream, 10))
    stream.cancel()
    code = failure(lambda: list(stream))
    ended = client.ended(b"1", timeout=SECONDS)
    return [first, code, ended.decode(), unary(client)]


def deadline(client: Client) -> object:
    """Calls that run out of time: the server learns of them, other calls go on."""
    codes = [failure(lambda: client.wait(b"", timeout=DEADLINE_SECONDS)) for _ in range(3)]
    ended = client.ended(b"3", timeout=SECONDS)
    return [codes, ended.decode(), unary(client)]


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        unary, big, client_stream, server_stream, slow_reader, bidirectional, dialogue, many_calls,
        cancellation, deadline,
    )
}  # fmt: skip


def streamed() -> Iterable[int]:
    """Return the lengths of the messages of a stream."""
    return itertools.islice(itertools.cycle(LENGTHS), STREAMED)


def told(answers: Iterable[bytes]) -> list[dict[str, object]]:
    """Tell messages as they arrive, for JSON."""
    return [asdict(Received.of(answer)) for answer in answers]


def failure(call: Callable[[], object]) -> str:
    """Return the name of the status that a call fails with, or `OK`."""
    try:
        call()
    except grpc.RpcError as error:
        code = error.code()
        return code.name
    return "OK"


if __name__ == "__main__":
    opened = Client(int(sys.argv[1]))
    with opened.channel:
        json.dump(SCENARIOS[sys.argv[2]](opened), sys.stdout)
