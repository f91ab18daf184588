# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""The two ends of a measurement: a client that asks and times, and a server that echoes."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import MeshaccelError
from ..system import tcp_information
from .figures import Run

READ_BYTES = 65_536
LOOPBACK = "127.0.0.1"
#: How much of a wrong answer an error shows.
SHOWN_BYTES = 40
#: A timeout of 0 would mean a socket that does not block.
SHORTEST_TIMEOUT_SECONDS = 0.001
READ = selectors.EVENT_READ
READ_AND_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE


class ProbeFailed(MeshaccelError):
    """The endpoint did not do what was expected of it."""


@dataclass(frozen=True)
class Load:
    """What a client does in one run.

    ``messages`` is the number over all connections; ``seconds`` bounds the run,
    connecting included.
    """

    address: str
    port: int
    request: bytes
    response: bytes
    connections: int
    messages: int
    seconds: float

    @property
    def endpoint(self) -> str:
        """The endpoint for messages."""
        return f"{self.address} port {self.port}"


class Conversation:
    """One connection of the client, with one request under way at a time."""

    def __init__(self, connection: socket.socket, load: Load) -> None:
        """Takes a connection that is set up and not blocking."""
        self.connection = connection
        self.payload_bytes = 0
        self._load = load
        self._unsent = memoryview(b"")
        self._received = 0
        self._began = 0.0

    def begin(self) -> None:
        """Starts the next request."""
        self._unsent = memoryview(self._load.request)
        self._received = 0
        self._began = time.perf_counter()
        self._send()

    @property
    def interest(self) -> int:
        """What to wait for."""
        return READ_AND_WRITE if self._unsent else READ

    def proceed(self) -> float | None:
        """Moves what can be moved; returns the latency in seconds when the response is complete.

        Raises ProbeFailed for a wrong response or the end of the stream.
        """
        self._send()
        self._receive()
        if self._received < len(self._load.response):
            return None
        return time.perf_counter() - self._began

    def _send(self) -> None:
        if not self._unsent:
            return
        with contextlib.suppress(BlockingIOError):
            count = self.connection.send(self._unsent)
            self._unsent = self._unsent[count:]
            self.payload_bytes += count

    def _receive(self) -> None:
        try:
            piece = self.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        expected = self._load.response[self._received : self._received + len(piece)]
        if not piece:
            self._fail(f"the end of the stream after {self._received} of {len(self._load.response)} bytes")
        if piece != expected:
            self._fail(f"{piece[:SHOWN_BYTES]!r} where {expected[:SHOWN_BYTES]!r} was expected")
        self._received += len(piece)
        self.payload_bytes += len(piece)

    def _fail(self, found: str) -> None:
        raise ProbeFailed(
            wanted=f"the expected response from {self._load.endpoint}",
            found=found,
            remedy="give the request and the exact response that this service sends, or name an echo service",
        )


def ask(load: Load) -> Run:
    """Runs one load to its number of messages or its time.

    Raises ProbeFailed when the endpoint refuses, answers wrongly or not at all.
    """
    deadline = time.monotonic() + load.seconds
    with connected(load, deadline) as conversations:
        began = time.perf_counter()
        latencies = converse(conversations, load, deadline)
        seconds = time.perf_counter() - began
        carried = [tcp_information.read(talk.connection) for talk in conversations]
    if not latencies:
        raise ProbeFailed(
            wanted=f"a response from {load.endpoint} within {load.seconds:.1f} s",
            found="none that was complete",
            remedy="check that the service answers this request, or allow a longer duration",
        )
    return Run(
        latencies=tuple(latencies),
        seconds=seconds,
        payload_bytes=sum(talk.payload_bytes for talk in conversations),
        tcp_bytes=sum(end.sent_bytes + end.received_bytes for end in carried),
    )


def converse(conversations: list[Conversation], load: Load, deadline: float) -> list[float]:
    """Keeps one request under way on each connection; returns the latencies in seconds."""
    latencies: list[float] = []
    unasked = load.messages
    with selectors.DefaultSelector() as selector:
        for talk in conversations[:unasked]:
            talk.begin()
            selector.register(talk.connection, talk.interest, talk)
        unasked -= len(conversations[:unasked])
        while len(latencies) < load.messages:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            for key, _ in selector.select(remaining):
                talk = key.data
                latency = talk.proceed()
                if latency is not None:
                    latencies.append(latency)
                    if unasked:
                        unasked -= 1
                        talk.begin()
                if key.events != talk.interest:
                    selector.modify(talk.connection, talk.interest, talk)
    return latencies


@contextmanager
def connected(load: Load, deadline: float) -> Iterator[list[Conversation]]:
    """Opens the connections of a load; raises ProbeFailed when the endpoint refuses."""
    with contextlib.ExitStack() as stack:
        conversations: list[Conversation] = []
        for _ in range(load.connections):
            connection = stack.enter_context(connect(load, deadline))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            conversations.append(Conversation(connection, load))
        yield conversations


def connect(load: Load, deadline: float) -> socket.socket:
    """Opens one connection; raises ProbeFailed when the endpoint refuses, or is silent to the deadline."""
    remaining = max(deadline - time.monotonic(), SHORTEST_TIMEOUT_SECONDS)
    try:
        return socket.create_connection((load.address, load.port), timeout=remaining)
    except OSError as error:
        raise ProbeFailed(
            wanted=f"a TCP connection to {load.endpoint}",
            found=error.strerror or str(error),
            remedy="start the service, or correct address and port",
        ) from error


class Echo:
    """One connection of the server: what was read and not yet sent back."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes an accepted connection."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self.connection = connection
        self._pending = bytearray()

    @property
    def interest(self) -> int:
        """What to wait for."""
        return READ_AND_WRITE if self._pending else READ

    def proceed(self) -> bool:
        """Moves what can be moved; returns whether the client is still there."""
        try:
            with contextlib.suppress(BlockingIOError):
                piece = self.connection.recv(READ_BYTES)
                if not piece:
                    return False
                self._pending += piece
            with contextlib.suppress(BlockingIOError):
                del self._pending[: self.connection.send(self._pending)]
        except ConnectionError:
            return False
        return True


def listen() -> socket.socket:
    """Returns a socket that listens on a free loopback port."""
    return socket.create_server((LOOPBACK, 0), backlog=socket.SOMAXCONN)


def serve(listener: socket.socket) -> None:
    """Echoes on every connection until the process is ended."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, READ)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    echo = Echo(listener.accept()[0])
                    selector.register(echo.connection, READ, echo)
                else:
                    attend(selector, key)


def attend(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Serves one connection that is ready."""
    echo: Echo = key.data
    if not echo.proceed():
        selector.unregister(echo.connection)
        echo.connection.close()
    elif key.events != echo.interest:
        selector.modify(echo.connection, echo.interest, echo)
