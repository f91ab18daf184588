"""A gRPC server whose messages are plain bytes, so that no schema has to be compiled.

Unary      answers the request itself
Collect    takes a stream of messages, answers what all of them together are
Generate   takes "COUNT LENGTH", answers a stream of so many messages
Echo       answers each message of a stream as it comes
Wait       never answers
Ended      takes a number, answers as soon as so many calls of Generate and Wait have ended
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import grpc

from tests.peers.addresses import ADDRESS
from tests.peers.bodies import Received, body

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SERVICE = "peers.Echo"
THREADS = 32
SECONDS = 20.0
#: The library's own limit is 4 MiB.
ANY_LENGTH = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Calls:
    """What the service does, and how many of the calls that a client may give up have ended."""

    def __init__(self) -> None:
        """Begin with none."""
        self._changed = threading.Condition()
        self._ended = 0

    def unary(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        """Answer the request."""
        return request

    def collect(self, requests: Iterable[bytes], _context: grpc.ServicerContext) -> bytes:
        """Answer what all requests together are."""
        return json.dumps(asdict(Received.of(b"".join(requests)))).encode()

    def generate(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answer as many messages of a length as the request says."""
        context.add_callback(self._count_end)
        count, length = map(int, request.split())
        for _ in range(count):
            yield body(length)

    def echo(self, requests: Iterable[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answer each request."""
        yield from requests

    def wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Wait until the client gives up."""
        gone = threading.Event()
        context.add_callback(gone.set)
        context.add_callback(self._count_end)
        gone.wait(SECONDS)
        return request

    def ended(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        """Answer how many calls have ended, once they are so many or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended >= int(request), SECONDS)
            return str(self._ended).encode()

    def _count_end(self) -> None:
        with self._changed:
            self._ended += 1
            self._changed.notify_all()


def handlers(calls: Calls) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Return the methods by their names."""
    return {
        "Unary": grpc.unary_unary_rpc_method_handler(calls.unary),
        "Collect": grpc.stream_unary_rpc_method_handler(calls.collect),
        "Generate": grpc.unary_stream_rpc_method_handler(calls.generate),
        "Echo": grpc.stream_stream_rpc_method_handler(calls.echo),
        "Wait": grpc.unary_unary_rpc_method_handler(calls.wait),
        "Ended": grpc.unary_unary_rpc_method_handler(calls.ended),
    }


def serve(port: int) -> None:
    """Serve until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(THREADS), options=ANY_LENGTH)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers(Calls()))])
    server.add_insecure_port(f"{ADDRESS}:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
